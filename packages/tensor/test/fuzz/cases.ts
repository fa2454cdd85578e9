/** The cases of the table of operations with other shapes, layouts, dtypes and values. */
import { LlmeffError } from "@llmeff/native";
import * as t from "../../src/index.js";
import { type DType, scope, type Tensor } from "../../src/index.js";
import { numbers } from "../numbers.js";
import { type OpCase, opCases } from "../op-cases.js";
import { type Dice, dtypes, largestSize, type Report, relaid, sizeOf, sizes, wide } from "./dice.js";

const specials = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0, 3e38, -3e38, 1e-45, 1e300];

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

interface Outcome {
  error?: unknown;
  values?: number[][];
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

/** A case is called after the function that it tests; a few, as chains of views, test several. */
function functionOf({ name }: OpCase): string {
  const [word] = /^\w+/.exec(name)!;
  return Object.hasOwn(t, word) ? word : name;
}

/** One case of the table with changed shapes, layouts, dtypes and values: the layout must not matter, and refusals must be typed. */
export function fuzzCase(dice: Dice, report: Report): string {
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
      if (error !== undefined && !isTyped(error)) report.fail(`${where}: ${(error as Error)?.stack ?? error}`);
    if ((a.error === undefined) !== (b.error === undefined))
      report.fail(`${where}: one layout is refused: ${((a.error ?? b.error) as Error).message}`);
    if (a.values === undefined || b.values === undefined) {
      report.refused();
      return;
    }
    report.computed(functionOf(opCase));
    if (special) return; // sums with infinities depend on the order of their terms
    const terms = Math.max(opCase.terms ?? 64, ...shapes.map(sizeOf));
    const coarsest = Math.max(...plain.map(({ dtype }) => roundoff[dtype] ?? 2 ** -24));
    const tolerance = 16 * coarsest * Math.sqrt(terms);
    const what = difference(a.values, b.values, tolerance);
    if (what !== undefined) report.fail(`${where}: by the layout, ${what}`);
  });
  return opCase.name;
}
