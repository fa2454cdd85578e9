import { engine, OptionError, ReduceOp, ShapeError } from "@llmeff/native";
import { scope } from "../scope.js";
import { formatShape, normalizeAxis, sizeOf } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkComparable, checkCount, checkPositions } from "./arguments.js";
import { detach } from "./clone.js";
import { gather } from "./gather.js";
import { permute, reshape } from "./views.js";

export interface SortOptions {
  /** Default the last. */
  axis?: number;
  /** The largest first; default the smallest. */
  descending?: boolean;
}

export interface TopKOptions {
  /** Default the last. */
  axis?: number;
  /** Default true; false for the smallest. */
  largest?: boolean;
}

export interface ArgReduceOptions {
  /** Default all axes, as one. */
  axis?: number;
  /** Keep the axis with size 1. */
  keepDims?: boolean;
}

/** Elements of an axis in their order, and where they stood. */
export interface Sorted {
  /** Differentiable. */
  values: Tensor;
  /** int32, for `gather`. */
  indices: Tensor;
}

/**
 * Positions along `axis` by a kernel that works on the last axis: writes `count` of them for each row of `x` with that axis last.
 */
function positions(
  name: string,
  x: Tensor,
  axis: number,
  count: number,
  kernel: (x: Tensor, out: Tensor) => void,
): Tensor {
  checkPositions(name, `axis ${axis}`, x.shape[axis]!);
  const others = [...x.shape.keys()].filter((i) => i !== axis);
  return scope(() => {
    const rows = permute(detach(x), [...others, axis]);
    const out = Tensor.allocate("int32", rows.shape.with(-1, count), x.deviceNumber);
    kernel(rows, out);
    const back = [...x.shape.keys()].map((i) => (i === axis ? others.length : others.indexOf(i)));
    return axis === others.length ? out : permute(out, back);
  });
}

/**
 * The positions that sort an axis, int32: equal elements in the order in which they stand, NaN after everything in both directions.
 *
 * @param x - floating-point or int32
 */
export function argsort(x: Tensor, options: SortOptions = {}): Tensor {
  checkComparable("argsort", "x", x);
  const { axis = -1, descending = false } = options;
  const on = normalizeAxis("argsort", axis, x.rank);
  return positions("argsort", x, on, x.shape[on]!, (rows, out) => {
    engine().op.argsort(rows.handle, descending, out.handle);
  });
}

/** The elements of an axis in ascending (or descending) order, with their positions; order as of `argsort`. */
export function sort(x: Tensor, options: SortOptions = {}): Sorted {
  checkComparable("sort", "x", x);
  const { axis = -1 } = options;
  return withValues(x, normalizeAxis("sort", axis, x.rank), argsort(x, options));
}

/**
 * The `k` largest (or smallest) elements of an axis, best first, with their positions; order as of `argsort`.
 *
 * @throws {OptionError} if the axis has fewer than `k` elements
 */
export function topK(x: Tensor, k: number, options: TopKOptions = {}): Sorted {
  checkComparable("topK", "x", x);
  checkCount("topK", "k", k);
  const { axis = -1, largest = true } = options;
  const on = normalizeAxis("topK", axis, x.rank);
  if (k > x.shape[on]!) {
    throw new OptionError(`[topK] k must be at most ${x.shape[on]}, the size of axis ${axis}; received ${k}.`);
  }
  const indices = positions("topK", x, on, k, (rows, out) => {
    engine().op.topK(rows.handle, largest, out.handle);
  });
  return withValues(x, on, indices);
}

function withValues(x: Tensor, axis: number, indices: Tensor): Sorted {
  return { values: gather(x, axis, indices), indices };
}

function argReduce(name: "argMax" | "argMin", x: Tensor, { axis, keepDims = false }: ArgReduceOptions): Tensor {
  checkComparable(name, "x", x);
  const whole = axis === undefined;
  if (whole) checkPositions(name, "x", x.size); // before a view of it is copied
  return scope(() => {
    const rows = whole ? reshape(detach(x), [x.size]) : x;
    const on = whole ? 0 : normalizeAxis(name, axis, x.rank);
    const shape = rows.shape.toSpliced(on, 1);
    if (rows.shape[on] === 0 && sizeOf(shape) > 0) {
      throw new ShapeError(`[${name}] there is nothing to choose from in shape ${formatShape(x.shape)}.`);
    }
    const found = positions(name, rows, on, 1, (from, out) => {
      using flat = reshape(out, out.shape.slice(0, -1));
      engine().op.argReduce(ReduceOp[name === "argMax" ? "max" : "min"], from.handle, flat.handle);
    });
    return reshape(found, keepDims ? x.shape.map((n, i) => (whole || i === on ? 1 : n)) : shape);
  });
}

/** The position of the largest element, int32: the first of equals, the first NaN if there is one. */
export function argMax(x: Tensor, options: ArgReduceOptions = {}): Tensor {
  return argReduce("argMax", x, options);
}

/** The position of the smallest element, int32: the first of equals, the first NaN if there is one. */
export function argMin(x: Tensor, options: ArgReduceOptions = {}): Tensor {
  return argReduce("argMin", x, options);
}
