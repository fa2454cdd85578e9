/** Views of some of the elements. Their gradients are zeros but for those. */
import { engine, OptionError, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { formatShape, normalizeAxes, normalizeAxis, sameShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";
import { full } from "./creation.js";

/** The op that shows the part of a tensor that `part` names, of any tensor of its shape. */
function definePart(name: string) {
  return defineOp<(x: Tensor) => Tensor>({
    name,
    forward: (_context, [x], part) => part(x!),
    backward({ shapes: [shape], options: part }, dout) {
      const dx = full(shape!, 0, { dtype: dout.dtype });
      engine().op.copy(dout.handle, part(dx).handle);
      return [dx];
    },
  });
}

/** `count` elements of an axis from `start` on, `step` apart; `step` may be negative. No gradient. @internal */
export function sliceView(x: Tensor, axis: number, start: number, count: number, step = 1): Tensor {
  const stride = x.strides[axis]!;
  return x.view(x.shape.with(axis, count), x.strides.with(axis, step * stride), start * stride);
}

const sliceOp = definePart("slice");

/**
 * A view of the elements `start, start + step, …` of one axis, up to but without `end`. Negative positions count from the end of the axis;
 * a negative step goes backwards, and without `end` to the first element.
 *
 * @throws {ShapeError} if the range doesn't lie within the axis
 *
 * @example
 * slice(x, 0, 1, -1); // without the first and the last row
 * slice(x, -1, 0, undefined, 2); // every other column
 * slice(x, 0, -1, undefined, -1); // the rows backwards
 */
export function slice(x: Tensor, axis: number, start: number, end?: number, step = 1): Tensor {
  checkTensor("slice", "x", x);
  if (!Number.isSafeInteger(step) || step === 0) {
    throw new OptionError(`[slice] step must be an integer other than 0; received ${step}.`);
  }
  const on = normalizeAxis("slice", axis, x.rank);
  const n = x.shape[on]!;
  const place = (i: number) => (i < 0 ? i + n : i);
  const first = place(start);
  const past = end === undefined ? (step > 0 ? n : -1) : place(end);
  // Going forwards both lie in 0..n; going backwards in -1..n-1, and an empty axis begins and ends at -1.
  const [low, high] = step > 0 ? [0, n] : [-1, n - 1];
  const within = (i: number) => Number.isInteger(i) && low <= i && i <= high;
  if (!within(first) || !within(past) || (past - first) * Math.sign(step) < 0) {
    const steps = step === 1 ? "" : ` in steps of ${step}`;
    throw new ShapeError(
      `[slice] ${start}..${end ?? (step > 0 ? n : "the first")}${steps} is no range within axis ${axis} of ${formatShape(x.shape)}.`,
    );
  }
  const count = Math.ceil((past - first) / step);
  return sliceOp([x], (y) => sliceView(y, on, first, count, step));
}

const flipOp = defineOp<readonly number[]>({
  name: "flip",
  forward(_context, [x], axes) {
    if (x!.size === 0) return x!.view(x!.shape, x!.strides);
    const strides = x!.strides.map((stride, axis) => (axes.includes(axis) ? -stride : stride));
    const offset = axes.reduce((sum, axis) => sum + (x!.shape[axis]! - 1) * x!.strides[axis]!, 0);
    return x!.view(x!.shape, strides, offset);
  },
  backward: ({ options: axes }, dout) => [flip(dout, axes)],
});

/** A view with the elements of one axis, or of several, backwards. */
export function flip(x: Tensor, axis: number | readonly number[]): Tensor {
  checkTensor("flip", "x", x);
  return flipOp([x], normalizeAxes("flip", axis, x.rank));
}

const diagonalOp = definePart("diagonal");

/**
 * A view of the diagonals of the matrices in the last two axes, `out[…, i] = x[…, i, i + offset]`; a negative offset names one below the main
 * diagonal. One that misses the matrix is empty.
 */
export function diagonal(x: Tensor, offset = 0): Tensor {
  checkTensor("diagonal", "x", x);
  if (x.rank < 2) throw new ShapeError(`[diagonal] expected x […, M, N]; received ${formatShape(x.shape)}.`);
  if (!Number.isSafeInteger(offset)) throw new OptionError(`[diagonal] offset must be an integer; received ${offset}.`);
  const [row, column] = [Math.max(0, -offset), Math.max(0, offset)];
  const length = Math.max(0, Math.min(x.shape.at(-2)! - row, x.shape.at(-1)! - column));
  return diagonalOp([x], (y) => {
    const [down, right] = [y.strides.at(-2)!, y.strides.at(-1)!];
    const start = length === 0 ? 0 : row * down + column * right;
    return y.view([...y.shape.slice(0, -2), length], [...y.strides.slice(0, -2), down + right], start);
  });
}

const splitOp = defineOp<{ axis: number; sizes: readonly number[] }, readonly Tensor[]>({
  name: "split",
  forward: (_context, [x], { axis, sizes }) => pieces(x!, axis, sizes),
  backward({ shapes: [shape], options: { axis, sizes } }, douts) {
    const whole = joined(douts, axis);
    if (whole && sameShape(whole.shape, shape!)) return [whole];
    const dx = Tensor.allocate(douts.find((dout) => dout !== null)!.dtype, shape!);
    for (const [i, part] of pieces(dx, axis, sizes).entries()) {
      const dout = douts[i];
      if (dout) engine().op.copy(dout.handle, part.handle);
      else engine().op.fill(0, part.handle);
    }
    return [dx];
  },
});

/** Views of an axis, cut into the given sizes in order. No gradient. @internal */
export function pieces(x: Tensor, axis: number, sizes: readonly number[]): Tensor[] {
  let start = 0;
  return sizes.map((size) => {
    start += size;
    return sliceView(x, axis, start - size, size);
  });
}

/** The tensor whose `pieces` these are, where they lie beside each other in memory; else undefined. No gradient. @internal */
export function joined(parts: readonly (Tensor | null)[], axis: number): Tensor | undefined {
  const first = parts[0];
  if (!first) return undefined;
  const step = first.strides[axis]!;
  let total = 0;
  for (const part of parts) {
    const alike = part !== null && part.dtype === first.dtype && part.rank === first.rank;
    if (!alike || engine().distance(first.handle, part.handle) !== total * step) return undefined;
    const fits = part.shape.every((n, i) => i === axis || n === first.shape[i]);
    if (!fits || !sameShape(part.strides, first.strides)) return undefined;
    total += part.shape[axis]!;
  }
  return first.view(first.shape.with(axis, total), first.strides);
}

/**
 * An axis cut into views: `parts` equal ones, or of the given sizes in order.
 *
 * @throws {ShapeError} if the parts don't fill the axis
 *
 * @example
 * const [q, k, v] = split(qkv, 3, -1);
 * const [train, held] = split(rows, [900, 100]);
 */
export function split(x: Tensor, parts: number | readonly number[], axis = 0): Tensor[] {
  checkTensor("split", "x", x);
  const on = normalizeAxis("split", axis, x.rank);
  const n = x.shape[on]!;
  const sizes =
    typeof parts === "number" && Number.isSafeInteger(parts) && parts > 0
      ? new Array<number>(parts).fill(n / parts)
      : parts;
  const whole = Array.isArray(sizes) && sizes.every((size) => Number.isSafeInteger(size) && size >= 0);
  if (!whole || sizes.reduce((sum, size) => sum + size, 0) !== n) {
    throw new ShapeError(
      `[split] ${JSON.stringify(parts)} must be a number of equal parts, or sizes that add up to the ${n} elements of axis ${axis} of ${formatShape(x.shape)}.`,
    );
  }
  return [...splitOp([x], { axis: on, sizes })];
}
