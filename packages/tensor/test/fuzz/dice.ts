/** The choices of one iteration and what every kind of throw is made of: sizes, dtypes, layouts. */
import { DTypeCode } from "@llmeff/native";
import { copyInto, type DType, full, type Tensor } from "../../src/index.js";
import { generator } from "../numbers.js";

/** What one throw may do to the report. */
export interface Report {
  computed(name: string): void;
  refused(): void;
  fail(what: string): void;
}

/** Choices of one iteration, repeatable from (seed, iteration) alone. */
export class Dice {
  readonly #next: () => number;
  constructor(seed: number, iteration: number) {
    this.#next = generator(Math.imul(seed, 0x9e3779b1) ^ Math.imul(iteration, 0x85ebca6b));
  }
  below(n: number): number {
    return Math.floor(this.#next() * n);
  }
  chance(probability: number): boolean {
    return this.#next() < probability;
  }
  of<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }
}

export const dtypes = Object.keys(DTypeCode) as DType[];
/** Sizes about nothing, one, the widths of vectors and the edges of tiles. */
export const sizes = [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65];
export const largestSize = 1 << 16;

export const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** An order of the axes 0 … rank − 1. */
export function shuffledAxes(dice: Dice, rank: number): number[] {
  const axes = Array.from({ length: rank }, (_, i) => i);
  for (let i = rank - 1; i > 0; i--) {
    const j = dice.below(i + 1);
    [axes[i], axes[j]] = [axes[j]!, axes[i]!];
  }
  return axes;
}

/** A view with the same elements in another layout: axes permuted in memory, and a part of something larger. */
export function relaid(dice: Dice, x: Tensor): Tensor {
  const axes = shuffledAxes(dice, x.rank);
  const margins = axes.map(() => dice.below(3));
  const memoryShape = axes.map((axis, i) => x.shape[axis]! + 2 * margins[i]!);
  let view = full(memoryShape, 1, { dtype: x.dtype });
  for (const [i, axis] of axes.entries()) view = view.slice(i, margins[i]!, margins[i]! + x.shape[axis]!);
  view = view.permute(axes.map((_, i) => axes.indexOf(i)));
  copyInto(view, x);
  return view;
}

/** The numbers of a tensor of any dtype. */
export function wide(x: Tensor): number[] {
  const computed = x.dtype === "bfloat16" || x.dtype === "float16" ? x.astype("float32") : x;
  return Array.from(computed.dataSync());
}
