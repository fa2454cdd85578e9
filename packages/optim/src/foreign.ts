/** What the adapters to other libraries share: parameters that live elsewhere are stepped in copies. */
import { DTypeError, OptionError, ShapeError } from "@llmeff/native";
import type { Optimizer } from "./optimizer-types.js";
import { own } from "./records.js";
import type { Steppable } from "./sam.js";

/** An array of another library, as numbers. */
export interface ForeignArray {
  shape: readonly number[];
  values: Float32Array;
}

/**
 * Makes the optimizer for parameters of another library.
 *
 * @param params - copies of the parameters by name, which the optimizer is to step
 * @param shapes - their shapes, for the option of that name
 */
export type MakeOptimizer = (
  params: Record<string, Float32Array>,
  shapes: Record<string, readonly number[]>,
) => Optimizer<Float32Array>;

/** @throws {DTypeError} unless the values are float32, which is all that the fused kernels step here */
export function float32Values(where: string, name: string, values: unknown): Float32Array {
  if (values instanceof Float32Array) return values;
  const received = Object.prototype.toString.call(values).slice(8, -1);
  throw new DTypeError(`[${where}] "${name}" must be float32; received ${received}. Cast it, or leave it untrained.`);
}

/** Float32 copies of a model's parameters, and the optimizer that steps them. */
export class Stepper {
  readonly optimizer: Optimizer<Float32Array>;
  readonly #where: string;
  readonly #params: Record<string, Float32Array>;
  readonly #shapes: Record<string, readonly number[]>;

  constructor(where: string, make: MakeOptimizer, params: ReadonlyMap<string, ForeignArray>) {
    if (params.size === 0) throw new OptionError(`[${where}] there is nothing to train: no parameters were given.`);
    this.#where = where;
    this.#params = Object.fromEntries(Array.from(params, ([name, { values }]) => [name, values.slice()]));
    this.#shapes = Object.fromEntries(Array.from(params, ([name, { shape }]) => [name, [...shape]]));
    this.optimizer = make({ ...this.#params }, { ...this.#shapes });
    const stepped = (this.optimizer as Partial<Steppable<Float32Array>>).params;
    const other = stepped && Object.keys(this.#params).find((name) => own(stepped, name) !== this.#params[name]);
    if (other !== undefined) {
      throw new OptionError(
        `[${where}] the optimizer must be made for the arrays that its maker is given; it doesn't step that of "${other}". Use them: (params) => new AdamW(params).`,
      );
    }
  }

  /**
   * Steps from the values that the parameters have now, which need not be those of the last step.
   *
   * @returns the optimizer's own arrays, to be copied: the next step changes them
   */
  step(
    params: ReadonlyMap<string, ForeignArray>,
    grads: ReadonlyMap<string, ForeignArray>,
  ): Record<string, Float32Array> {
    for (const [name, { shape }] of [...params, ...grads]) this.#requireShape(name, shape);
    for (const [name, { values }] of params) this.#params[name]!.set(values);
    this.optimizer.step(Object.fromEntries(Array.from(grads, ([name, { values }]) => [name, values])));
    return this.#params;
  }

  #requireShape(name: string, shape: readonly number[]): void {
    const before = own(this.#shapes, name);
    if (before === undefined) {
      throw new OptionError(
        `[${this.#where}] "${name}" wasn't among the parameters of the first step: ${Object.keys(this.#shapes).join(", ")}. Make an optimizer of its own for it.`,
      );
    }
    if (shape.length === before.length && shape.every((n, axis) => n === before[axis])) return;
    throw new ShapeError(`[${this.#where}] "${name}" was [${before.join(", ")}]; received [${shape.join(", ")}].`);
  }
}
