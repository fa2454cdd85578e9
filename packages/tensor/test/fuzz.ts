import { DTypeCode, engine, type Handle, LlmeffError } from "@llmeff/native";
import * as t from "../src/index.js";
import { type DType, memory, scope, sync, type Tensor } from "../src/index.js";
import { generator, numbers } from "./numbers.js";
import { type OpCase, opCases } from "./op-cases.js";

export interface FuzzResult {
  iterations: number;
  /** Calls that gave a result. */
  computed: number;
  /** Calls that were refused with a typed error. */
  refused: number;
  /** What should not have happened, with the iteration whose seed repeats it. */
  failures: { iteration: number; what: string }[];
}

/** Choices of one iteration, repeatable from (seed, iteration) alone. */
class Dice {
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

const dtypes = Object.keys(DTypeCode) as DType[];
/** Sizes about nothing, one, the widths of vectors and the edges of tiles. */
const sizes = [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65];
const specials = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0, 3e38, -3e38, 1e-45, 1e300];
const largestSize = 1 << 16;

const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** The shapes of a case as they are, with one size exchanged for another wherever it stands, or with one axis changed. */
function shapesFor(dice: Dice, { inputs }: OpCase): number[][] {
  const shapes = inputs.map((shape) => [...shape]);
  const kind = dice.below(10);
  if (kind < 3) return shapes;
  if (kind < 8) {
    const [from, to] = [dice.of(shapes.flat().concat(1)), dice.of(sizes)];
    return shapes.map((shape) => shape.map((n) => (n === from ? to : n)));
  }
  const shape = dice.of(shapes);
  const axis = dice.below(shape.length + 1);
  if (kind === 8) shape.splice(axis, dice.below(2), ...(dice.chance(0.5) ? [dice.of(sizes)] : []));
  else if (axis < shape.length) shape[axis] = dice.of(sizes);
  return shapes;
}

function valuesFor(dice: Dice, count: number, [low, high]: readonly [number, number], special: boolean): Float64Array {
  const values = numbers(count, dice.below(1 << 30), low, high);
  if (special) for (let i = 0; i < values.length; i++) if (dice.chance(0.1)) values[i] = dice.of(specials);
  return values;
}

/** A view with the same elements in another layout: axes permuted in memory, and a part of something larger. */
function relaid(dice: Dice, x: Tensor): Tensor {
  const axes = x.shape.map((_, i) => i);
  for (let i = axes.length - 1; i > 0; i--) {
    const j = dice.below(i + 1);
    [axes[i], axes[j]] = [axes[j]!, axes[i]!];
  }
  const margins = axes.map(() => dice.below(3));
  const memoryShape = axes.map((axis, i) => x.shape[axis]! + 2 * margins[i]!);
  let view = t.full(memoryShape, 1, { dtype: x.dtype });
  for (const [i, axis] of axes.entries()) view = view.slice(i, margins[i]!, margins[i]! + x.shape[axis]!);
  const back = axes.map((_, i) => axes.indexOf(i));
  view = view.permute(back);
  t.copyInto(view, x);
  return view;
}

interface Outcome {
  error?: unknown;
  values?: number[][];
}

function wide(x: Tensor): number[] {
  const computed = x.dtype === "bfloat16" || x.dtype === "float16" ? x.astype("float32") : x;
  return Array.from(computed.dataSync());
}

/** The result of an op and the gradients of its inputs, or why there are none. */
function outcomeOf(opCase: OpCase, inputs: readonly Tensor[], differentiate: boolean): Outcome {
  try {
    return scope(() => {
      if (!differentiate) return { values: [wide(opCase.compute(...inputs))] };
      let out: Tensor | undefined;
      const { grads } = t.valueAndGrad((xs: readonly Tensor[]) => {
        out = opCase.compute(...xs);
        return { loss: out.sum(), aux: out };
      }, inputs);
      return { values: [out!, ...grads].map(wide) };
    });
  } catch (error) {
    return { error };
  }
}

const roundoff: Partial<Record<DType, number>> = { float64: 2 ** -53, bfloat16: 2 ** -8, float16: 2 ** -11 };

/** What differs between two results, beyond sums in another order; undefined when nothing does. */
function difference(a: number[][], b: number[][], tolerance: number): string | undefined {
  for (const [k, x] of a.entries()) {
    const y = b[k]!;
    if (x.length !== y.length) return `result ${k} has ${x.length} and ${y.length} elements`;
    const scale = x.reduce((most, value) => Math.max(most, Number.isFinite(value) ? Math.abs(value) : 0), 1);
    const at = x.findIndex((value, i) => !Object.is(value, y[i]) && !(Math.abs(value - y[i]!) <= tolerance * scale));
    if (at >= 0) return `element ${at} of result ${k} is ${x[at]} and ${y[at]}`;
  }
  return undefined;
}

function isTyped(error: unknown): boolean {
  return error instanceof LlmeffError && /^\[[\w@/. ]+\] /.test(error.message);
}

/** One case of the table with changed shapes, layouts, dtypes and values: the layout must not matter, and refusals must be typed. */
function fuzzCase(dice: Dice, result: FuzzResult, fail: (what: string) => void): string {
  const opCase = dice.of(opCases);
  const shapes = shapesFor(dice, opCase);
  if (shapes.some((shape) => sizeOf(shape) > largestSize || shape.length > 8)) return opCase.name;
  const common = dice.chance(0.6) ? "float32" : dice.of(dtypes);
  const special = dice.chance(0.2);
  const range = opCase.range ?? [-1, 1];
  scope(() => {
    const plain = shapes.map((shape) =>
      t.tensor(valuesFor(dice, sizeOf(shape), range, special), {
        shape,
        dtype: dice.chance(0.03) ? dice.of(dtypes) : common,
      }),
    );
    const strided = plain.map((x) => (dice.chance(0.7) ? relaid(dice, x) : x));
    if (dice.chance(0.05)) {
      const victim = dice.below(plain.length);
      plain[victim]?.dispose();
      strided[victim]?.dispose();
    }
    const differentiate = dice.chance(0.5);
    const [a, b] = [outcomeOf(opCase, plain, differentiate), outcomeOf(opCase, strided, differentiate)];
    const where = `${opCase.name} of ${common} ${shapes.map((s) => `[${s}]`).join(", ")}`;
    for (const { error } of [a, b])
      if (error !== undefined && !isTyped(error)) fail(`${where}: ${(error as Error)?.stack ?? error}`);
    if ((a.error === undefined) !== (b.error === undefined))
      fail(`${where}: one layout is refused: ${((a.error ?? b.error) as Error).message}`);
    if (a.values === undefined || b.values === undefined) {
      result.refused++;
      return;
    }
    result.computed++;
    if (special) return; // sums with infinities depend on the order of their terms
    const terms = Math.max(opCase.terms ?? 64, ...shapes.map(sizeOf));
    const tolerance = 16 * (roundoff[common] ?? 2 ** -24) * Math.sqrt(terms);
    const what = difference(a.values, b.values, tolerance);
    if (what !== undefined) fail(`${where}: by the layout, ${what}`);
  });
  return opCase.name;
}

/** Everything that the package exports and takes tensors, by name. */
const functions = Object.entries(t).filter(
  ([name, value]) =>
    typeof value === "function" &&
    !/^[A-Z]/.test(name) &&
    !/^(?:load|save|encode|decode|emptyCache|keep|memory|reset|scope|sync|defineOp)/.test(name),
) as unknown as [string, (...args: unknown[]) => unknown][];

const optionNames = [
  ["axis", "keepDims", "dtype", "shape", "eps", "scale", "causal", "window", "qOffset", "softcap", "interleaved"],
  ["w1", "w2", "k2Bias", "v2Bias", "k1Offset", "k2Offset", "form", "ignoreIndex", "labelSmoothing", "zLoss", "seed"],
  ["stride", "padding", "dilation", "groups", "descending", "largest", "reduction", "approximate", "correction"],
].flat();

function argument(dice: Dice): unknown {
  const kind = dice.below(12);
  if (kind < 6) {
    const shape = Array.from({ length: dice.below(5) }, () => dice.of(sizes.slice(0, 8)));
    const x = t.tensor(numbers(sizeOf(shape), dice.below(1000), -2, 5), { shape, dtype: dice.of(dtypes) });
    if (dice.chance(0.1)) x.dispose();
    return !x.disposed && dice.chance(0.5) ? relaid(dice, x) : x;
  }
  if (kind < 8) return dice.of([0, 1, -1, 2, 3, 5, -7, 1.5, 2 ** 40, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY]);
  if (kind < 9) return Array.from({ length: dice.below(5) }, () => dice.of(sizes) - dice.below(3));
  if (kind < 10) return Array.from({ length: dice.below(4) }, () => argument(dice));
  if (kind < 11)
    return Object.fromEntries(Array.from({ length: dice.below(4) }, () => [dice.of(optionNames), argument(dice)]));
  return dice.of([undefined, null, true, "float32", "mean", "sum", "ij,jk->ik", () => 1, (x: Tensor) => x]);
}

/** Any function with any arguments: a result, or an error of JavaScript or ours; never a crash, a leak or a wrong state. */
async function fuzzFunction(dice: Dice, result: FuzzResult, fail: (what: string) => void): Promise<string> {
  const [name, call] = dice.of(functions);
  let pending: unknown;
  try {
    scope(() => {
      const args = Array.from({ length: 1 + dice.below(5) }, () => argument(dice));
      const out = call(...args);
      if (out instanceof Promise) pending = out;
      else for (const x of t.tensorsOf(out)) if (!x.disposed && x.size <= largestSize) x.dataSync();
    });
    result.computed++;
  } catch (error) {
    if (!(error instanceof LlmeffError || error instanceof TypeError || error instanceof RangeError))
      fail(`${name}: ${(error as Error)?.stack ?? error}`);
    result.refused++;
  }
  if (pending instanceof Promise) await pending.catch(() => undefined);
  return name;
}

/** The engine's arrays by number: made, viewed, read, written and released with numbers that may name nothing. */
function fuzzHandles(dice: Dice, result: FuzzResult, fail: (what: string) => void): string {
  const native = engine();
  const handles: Handle[] = [];
  const any = () =>
    dice.chance(0.8) && handles.length > 0 ? dice.of(handles) : dice.of([-1, 0, 0.5, 2 ** 60, 7 << 24]);
  const shape = () => Array.from({ length: dice.below(4) }, () => dice.of(sizes) - (dice.chance(0.05) ? 1 : 0));
  for (let i = 0; i < 20; i++) {
    try {
      const kind = dice.below(6);
      if (kind < 2) handles.push(native.create(dice.below(9) - 1, ...shape()));
      else if (kind === 2) {
        const to = shape();
        const strides = to.map(() => dice.below(9) - 2);
        handles.push(native.view(any(), dice.below(8), dice.below(40) - 5, ...to, ...strides));
      } else if (kind === 3) native.readSync(any(), new Float32Array(dice.of(sizes)));
      else if (kind === 4) native.upload(any(), new Float64Array(dice.of(sizes)), dice.below(8));
      else native.release(any());
      result.computed++;
    } catch (error) {
      if (!(error instanceof LlmeffError || error instanceof TypeError))
        fail(`handles: ${(error as Error)?.stack ?? error}`);
      result.refused++;
    }
  }
  for (const handle of handles) native.release(handle);
  return "handles";
}

export async function fuzz(iterations: number, seed: number, onIteration: (i: number) => void): Promise<FuzzResult> {
  const result: FuzzResult = { iterations, computed: 0, refused: 0, failures: [] };
  for (let iteration = 0; iteration < iterations; iteration++) {
    onIteration(iteration);
    const dice = new Dice(seed, iteration);
    const fail = (what: string) => result.failures.push({ iteration, what });
    const before = memory().tensors;
    const kind = dice.below(10);
    const throwAt = kind < 7 ? fuzzCase : kind < 9 ? fuzzFunction : fuzzHandles;
    const name = await throwAt(dice, result, fail);
    await sync().catch(() => undefined); // failures that nobody read
    const left = memory().tensors - before;
    if (left !== 0) fail(`${left} tensors are left by ${name}`);
    if (result.failures.length >= 20) break;
  }
  return result;
}
