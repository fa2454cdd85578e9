import { DTypeError, engine, ReduceOp, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { formatShape, normalizeAxes, sizeOf } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFinite, checkFloating, checkTensor } from "./arguments.js";
import { equal, logicalAnd, notEqual } from "./binary.js";
import { filled } from "./creation.js";
import { exp } from "./unary.js";
import { expandView, reshape } from "./views.js";
import { where } from "./where.js";

export interface ReduceOptions {
  /** Axis or axes to reduce, negative from the end; default all. */
  axis?: number | readonly number[];
  /** Keep reduced axes with size 1. */
  keepDims?: boolean;
}

export interface VarianceOptions extends ReduceOptions {
  /**
   * Squares are divided by the count minus this: 1 (the default, as in PyTorch) estimates the variance of a population from a sample, 0 gives that
   * of the numbers themselves, as normalisation layers and NumPy do.
   */
  correction?: number;
}

type Name = keyof typeof ReduceOp;

interface Reduction {
  axes: readonly number[];
  /** Elements that make one result. */
  count: number;
  correction: number;
}

/** What comes of reducing nothing. */
const ofNothing: Partial<Record<Name, number>> = { sum: 0, prod: 1, logSumExp: -Infinity };

/** The kernel alone; the reduced axes stay with size 1. */
function compute(name: Name, x: Tensor, axes: readonly number[]): Tensor {
  const out = Tensor.allocate(
    x.dtype,
    x.shape.map((n, axis) => (axes.includes(axis) ? 1 : n)),
    x.deviceNumber,
  );
  engine().op.reduce(ReduceOp[name], x.handle, out.handle);
  return out;
}

interface Gradient {
  x: Tensor;
  out: Tensor;
  dout: Tensor;
  options: Reduction;
}

/** A reduction that keeps its axes with size 1; `gradient` broadcasts to the shape of x. */
function define(
  name: Name,
  keeps: "nothing" | "x" | "x and result",
  gradient: (of: Gradient) => Tensor,
  finish: (out: Tensor, options: Reduction) => Tensor = (out) => out,
) {
  return defineOp<Reduction>({
    name,
    forward(context, [x], options) {
      const out = finish(compute(name, x!, options.axes), options);
      if (keeps === "x") context.save(x!);
      if (keeps === "x and result") context.save(x!, out);
      return out;
    },
    backward: ({ saved: [x, out], shapes: [shape], options }, dout) => [
      expandView(gradient({ x: x!, out: out!, dout, options }), shape!),
    ],
  });
}

/** Elements that tie for the extreme share the gradient. */
function ofExtreme({ x, out, dout, options: { axes } }: Gradient): Tensor {
  const hits = equal(x, out).astype(dout.dtype);
  return hits.mul(dout.div(sum(hits, { axis: axes, keepDims: true })));
}

/** The product of all others: of those that aren't zero, unless there is another zero. */
function ofProduct({ x, dout, options: { axes } }: Gradient): Tensor {
  const zero = equal(x, 0);
  const others = where(zero, 1, x);
  const product = compute("prod", others, axes).mul(dout);
  const zeros = sum(zero.astype(x.dtype), { axis: axes, keepDims: true });
  const alone = where(logicalAnd(zero, equal(zeros, 1)), product, 0);
  return where(equal(zeros, 0), product.div(others), alone);
}

/** `(x − mean) / (count − correction)` */
function deviation(x: Tensor, { axes, count, correction }: Reduction): Tensor {
  return x.sub(compute("mean", x, axes)).div(count - correction);
}

/** The divisor's change from the count to count − correction, NaN where nothing is left to divide by. */
function corrected(variance: Tensor, { count, correction }: Reduction): Tensor {
  return correction === 0 ? variance : variance.mul(count / Math.max(0, count - correction));
}

const operations = {
  sum: define("sum", "nothing", ({ dout }) => dout),
  mean: define("mean", "nothing", ({ dout, options: { count } }) => dout.div(count)),
  max: define("max", "x and result", ofExtreme),
  min: define("min", "x and result", ofExtreme),
  prod: define("prod", "x", ofProduct),
  variance: define("variance", "x", ({ x, dout, options }) => deviation(x, options).mul(dout.mul(2)), corrected),
  // The slope of the root at 0 is infinite; as in PyTorch it counts as 0.
  std: define(
    "variance",
    "x and result",
    ({ x, out, dout, options }) => {
      const perDeviation = where(notEqual(out, 0), dout.div(out), 0);
      return deviation(x, options).mul(perDeviation);
    },
    (variance, options) => corrected(variance, options).sqrt(),
  ),
  // e^(x − result), 0 in a row of nothing but −∞.
  logSumExp: define("logSumExp", "x and result", ({ x, out, dout }) => {
    const shift = where(equal(out, -Infinity), 0, out);
    return exp(x.sub(shift)).mul(dout);
  }),
};

function reducedAxes(name: string, x: Tensor, { axis }: ReduceOptions): number[] {
  return axis === undefined ? [...x.shape.keys()] : normalizeAxes(name, axis, x.rank);
}

/** Drops the reduced axes, unless they are kept. */
function dropAxes(out: Tensor, axes: readonly number[], keepDims = false): Tensor {
  if (keepDims) return out;
  const flat = reshape(
    out,
    out.shape.filter((_, i) => !axes.includes(i)),
  );
  out.dispose();
  return flat;
}

function emptyReduction(name: Name | "std", x: Tensor, axes: readonly number[]): Tensor | undefined {
  const shape = x.shape.map((n, axis) => (axes.includes(axis) ? 1 : n));
  if (x.size > 0 || sizeOf(shape) === 0) return undefined;
  const value = name === "std" ? undefined : ofNothing[name];
  if (value === undefined) {
    throw new ShapeError(`[${name}] there is nothing to reduce in shape ${formatShape(x.shape)}.`);
  }
  return filled(value, x.dtype, shape, x.deviceNumber);
}

function reduce(name: keyof typeof operations, x: Tensor, options: ReduceOptions = {}, correction = 0): Tensor {
  checkFloating(name, { x });
  const axes = reducedAxes(name, x, options);
  const count = axes.reduce((n, axis) => n * x.shape[axis]!, 1);
  const out = emptyReduction(name, x, axes) ?? operations[name]([x], { axes, count, correction });
  return dropAxes(out, axes, options.keepDims);
}

/** max and min, of integers and bool too, which have no gradient. */
function extreme(name: "max" | "min", x: Tensor, options: ReduceOptions = {}): Tensor {
  checkTensor(name, "x", x);
  if (x.dtype !== "int32" && x.dtype !== "uint8" && x.dtype !== "bool") return reduce(name, x, options);
  const axes = reducedAxes(name, x, options);
  return dropAxes(emptyReduction(name, x, axes) ?? compute(name, x, axes), axes, options.keepDims);
}

/** any and all: the maximum and the minimum of bool. */
function quantify(name: "any" | "all", x: Tensor, options: ReduceOptions = {}): Tensor {
  checkTensor(name, "x", x);
  if (x.dtype !== "bool") {
    throw new DTypeError(`[${name}] x must be bool; received ${x.dtype}. Compare first, e.g. notEqual(x, 0).`);
  }
  const axes = reducedAxes(name, x, options);
  if (x.size > 0) return dropAxes(compute(name === "any" ? "max" : "min", x, axes), axes, options.keepDims);
  const shape = x.shape.map((n, axis) => (axes.includes(axis) ? 1 : n));
  return dropAxes(filled(name === "any" ? 0 : 1, "bool", shape, x.deviceNumber), axes, options.keepDims);
}

// All take the axes to reduce, default all. float32 is added up in float64 beyond short blocks.

/** `Σ x`, 0 of nothing */
export function sum(x: Tensor, options?: ReduceOptions): Tensor {
  return reduce("sum", x, options);
}
/** `Σ x / n`; there is none of nothing. */
export function mean(x: Tensor, options?: ReduceOptions): Tensor {
  return reduce("mean", x, options);
}
/** `Π x`, 1 of nothing; multiplied in float64. Its gradient is the product of the others, also where some are 0. */
export function prod(x: Tensor, options?: ReduceOptions): Tensor {
  return reduce("prod", x, options);
}
/** The largest elements; NaN if there is one. Equal ones share the gradient. Also of int32, uint8 and bool. */
export function max(x: Tensor, options?: ReduceOptions): Tensor {
  return extreme("max", x, options);
}
/** The smallest elements; NaN if there is one. Equal ones share the gradient. Also of int32, uint8 and bool. */
export function min(x: Tensor, options?: ReduceOptions): Tensor {
  return extreme("min", x, options);
}

/**
 * `Σ (x − mean)² / (count − correction)`, in two passes: exact for numbers far from 0 too. NaN where `count ≤ correction`.
 *
 * @example
 * variance(tensor([1, 2, 3, 4])); // 5/3: the squares 2.25 + 0.25 + 0.25 + 2.25 over 4 − 1
 * variance(tensor([1, 2, 3, 4]), { correction: 0 }); // 1.25
 */
export function variance(x: Tensor, options: VarianceOptions = {}): Tensor {
  return dispersion("variance", x, options);
}
/** The root of the `variance`, with derivative 0 where it is 0. */
export function std(x: Tensor, options: VarianceOptions = {}): Tensor {
  return dispersion("std", x, options);
}
function dispersion(name: "variance" | "std", x: Tensor, options: VarianceOptions): Tensor {
  const { correction = 1 } = options;
  checkFinite(name, "correction", correction);
  return reduce(name, x, options, correction);
}

/** `ln Σ eˣ`, the maximum taken out first. −∞ of nothing, and of nothing but −∞. */
export function logSumExp(x: Tensor, options?: ReduceOptions): Tensor {
  return reduce("logSumExp", x, options);
}
/** Whether any element of a bool tensor holds; false of nothing. */
export function any(x: Tensor, options?: ReduceOptions): Tensor {
  return quantify("any", x, options);
}
/** Whether all elements of a bool tensor hold; true of nothing. */
export function all(x: Tensor, options?: ReduceOptions): Tensor {
  return quantify("all", x, options);
}
