/** Every exported function with arguments of any kind. */
import { LlmeffError } from "@llmeff/native";
import * as t from "../../src/index.js";
import { type DType, scope, type Tensor } from "../../src/index.js";
import { numbers } from "../numbers.js";
import { type Dice, dtypes, largestSize, type Report, relaid, sizeOf, sizes } from "./dice.js";

/** Everything that the package exports and takes tensors, by name; not what says where tensors are made. */
export const functions = Object.entries(t).filter(
  ([name, value]) =>
    typeof value === "function" &&
    !/^[A-Z]/.test(name) &&
    !/^(?:setDefaultDevice|defaultDevice|devices|isDeviceChoice|missingGpu|resolveDevice)$/.test(name) &&
    !/^(?:load|save|encode|decode|emptyCache|errorFromNative|nativeOrigin|keep|memory|reset|scope|sync|defineOp)/.test(
      name,
    ),
) as unknown as [string, (...args: unknown[]) => unknown][];

const optionNames = [
  ["axis", "keepDims", "dtype", "shape", "eps", "scale", "causal", "window", "qOffset", "softcap", "interleaved"],
  ["w1", "w2", "k2Bias", "v2Bias", "k1Offset", "k2Offset", "form", "ignoreIndex", "labelSmoothing", "zLoss", "seed"],
  ["stride", "padding", "dilation", "groups", "descending", "largest", "reduction", "approximate", "correction"],
].flat();

function argument(dice: Dice): unknown {
  const kind = dice.below(12);
  if (kind < 6) {
    const rank = dice.chance(0.1) ? 5 + dice.below(5) : dice.below(5);
    const shape = Array.from({ length: rank }, () => dice.of(sizes.slice(0, rank < 5 ? 8 : 4)));
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

const floating = ["float32", "float64", "bfloat16", "float16"] as const;
const array = (dice: Dice, shape: number[], dtype: DType = dice.of(floating)) =>
  t.tensor(numbers(sizeOf(shape), dice.below(1000), -2, 5), { shape, dtype });
const shapeOf = (dice: Dice) => Array.from({ length: dice.below(4) }, () => dice.of(sizes.slice(0, 8)));
const ids = (dice: Dice, shape: number[], below: number) =>
  t.tensor(
    Int32Array.from({ length: sizeOf(shape) }, () => dice.below(below)),
    { shape },
  );
const sumOfSquares = (...xs: Tensor[]) => xs.reduce((sum, x) => sum.add(x.square().sum()), t.zeros([]));

function classification(dice: Dice) {
  const [rows, classes, width] = [dice.of(sizes), 1 + dice.below(40), 1 + dice.below(20)];
  const targets = ids(dice, [rows], classes);
  return { rows, classes, width, targets };
}

function elementwise(dice: Dice): unknown[] {
  const shape = shapeOf(dice);
  return [array(dice, shape), dice.chance(0.3) ? dice.below(5) : array(dice, dice.chance(0.5) ? shape : [1])];
}
const truths = (dice: Dice) => array(dice, shapeOf(dice), "bool");
const named = <T>(names: string, value: T) => Object.fromEntries(names.split(" ").map((name) => [name, value]));

/** Arguments that make sense, for what the table of differentiable operations does not call and chance seldom hits. */
const sensible: Record<string, (dice: Dice) => unknown[]> = {
  ...named("equal notEqual greater greaterEqual less lessEqual floorDivide remainder atan2 logAddExp", elementwise),
  ...named("floor ceil round trunc sign isFinite isNaN detach zerosLike onesLike", (dice: Dice) => [
    array(dice, shapeOf(dice)),
  ]),
  ...named("argMax argMin argsort sort cumsum", (dice: Dice) => [
    array(dice, [dice.of(sizes), 1 + dice.below(9)]),
    { axis: -1 },
  ]),
  ...named("logicalAnd logicalOr logicalXor", (dice: Dice) => [truths(dice), array(dice, [1], "bool")]),
  ...named("logicalNot any all", (dice: Dice) => [truths(dice)]),
  ...named("zeros ones", (dice: Dice) => [shapeOf(dice), { dtype: dice.of(dtypes) }]),
  ...named("randomUniform randomNormal", (dice: Dice) => [
    { seed: dice.below(1000) },
    shapeOf(dice),
    { dtype: dice.of(floating) },
  ]),
  ...named("grad valueAndGrad", (dice: Dice) => [
    (x: Tensor) => sumOfSquares(x),
    array(dice, shapeOf(dice), "float32"),
  ]),
  ...named("noGrad detectAnomaly", () => [() => t.ones([3])]),
  checkpoint: (dice) => [sumOfSquares, array(dice, shapeOf(dice), "float32")],
  customGrad: () => [sumOfSquares, () => []],
  full: (dice) => [shapeOf(dice), dice.below(9), { dtype: dice.of(dtypes) }],
  fill: (dice) => [array(dice, shapeOf(dice), dice.of(dtypes)), dice.below(2)],
  tensor: (dice) => [Array.from(numbers(dice.of(sizes), 1)), { dtype: dice.of(dtypes) }],
  arange: (dice) => [dice.below(9) - 4, dice.of(sizes)],
  linspace: (dice) => [-1, dice.below(9), dice.of(sizes)],
  eye: (dice) => [dice.of(sizes), dice.of(sizes), { dtype: dice.of(dtypes) }],
  expand: (dice) => [array(dice, [3, 1]), [dice.of(sizes), 3, dice.of(sizes)]],
  unsqueeze: (dice) => [array(dice, shapeOf(dice)), dice.of([0, -1])],
  oneHot: (dice) => [ids(dice, shapeOf(dice), 7), 7, { dtype: dice.of(dtypes) }],
  globalNorm: (dice) => [[array(dice, shapeOf(dice), "float32"), array(dice, shapeOf(dice), "float32")]],
  ropeFrequencies: (dice) => [2 * (1 + dice.below(40))],
  ropeTables: (dice) => [dice.of(sizes), 2 * (1 + dice.below(40)), { dtype: dice.of(floating) }],
  toDevice: (dice) => [array(dice, shapeOf(dice), dice.of(dtypes)), "cpu"],
  topK: (dice) => [array(dice, [dice.of(sizes), 9]), 1 + dice.below(9)],
  crossEntropyParts: (dice) => {
    const { rows, classes, targets } = classification(dice);
    return [array(dice, [rows, classes]), targets];
  },
  linearCrossEntropyParts: (dice) => {
    const { rows, classes, width, targets } = classification(dice);
    const dtype = dice.of(floating);
    return [array(dice, [rows, width], dtype), array(dice, [classes, width], dtype), targets];
  },
};

function argumentsFor(dice: Dice, name: string): unknown[] {
  const known = sensible[name];
  if (known === undefined || dice.chance(0.3)) return Array.from({ length: 1 + dice.below(5) }, () => argument(dice));
  const args = known(dice);
  if (dice.chance(0.2)) args[dice.below(args.length + 1)] = argument(dice);
  return args;
}

/** Any function with any arguments: a result, or an error of JavaScript or ours; never a crash, a leak or a wrong state. */
export async function fuzzFunction(dice: Dice, report: Report): Promise<string> {
  const [name, call] = dice.of(functions);
  let pending: unknown;
  try {
    scope(() => {
      const out = call(...argumentsFor(dice, name));
      if (out instanceof Promise) pending = out;
      else for (const x of t.tensorsOf(out)) if (!x.disposed && x.size <= largestSize) x.dataSync();
    });
    report.computed(name);
  } catch (error) {
    if (!(error instanceof LlmeffError || error instanceof TypeError || error instanceof RangeError))
      report.fail(`${name}: ${(error as Error)?.stack ?? error}`);
    report.refused();
  }
  if (pending instanceof Promise) await pending.catch(() => undefined);
  return name;
}
