import { engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { checkShape, contiguousStrides, formatShape, normalizeAxis, type Shape, sameShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";
import { sumTo } from "./binary.js";
import { clone } from "./clone.js";
import { full } from "./creation.js";

/** A view of `x` stretched to `shape` by strides of 0; shapes must broadcast. No gradient. @internal */
export function expandView(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  const lead = shape.length - x.rank;
  const strides = shape.map((n, axis) => (axis < lead || x.shape[axis - lead] !== n ? 0 : x.strides[axis - lead]!));
  return x.view([...shape], strides);
}

const reshapeOp = defineOp<Shape>({
  name: "reshape",
  forward: (_context, [x], shape) => (x!.isContiguous ? x! : clone(x!)).view(shape, contiguousStrides(shape)),
  backward: ({ shapes: [shape] }, dout) => [reshape(dout, shape!)],
});

/**
 * The same elements in row-major order under another shape: a view where the memory allows, else a copy.
 *
 * @param shape - one entry may be -1: what is left
 * @throws {ShapeError} if the numbers of elements differ
 */
export function reshape(x: Tensor, shape: Shape): Tensor {
  checkTensor("reshape", "x", x);
  if (!Array.isArray(shape)) {
    throw new ShapeError(`[reshape] a shape is an array of integers; received ${JSON.stringify(shape)}.`);
  }
  const unknown = shape.indexOf(-1);
  let target = [...shape];
  if (unknown >= 0) {
    const rest = sizeOf(target.filter((_, axis) => axis !== unknown));
    target = target.with(unknown, rest > 0 ? x.size / rest : 0);
  }
  const valid = target.every((n) => Number.isSafeInteger(n) && n >= 0) && sizeOf(target) === x.size;
  if (!valid) {
    throw new ShapeError(
      `[reshape] ${formatShape(x.shape)} has ${x.size} elements, which don't fill ${formatShape(shape)}.`,
    );
  }
  checkShape("reshape", target);
  return reshapeOp([x], target);
}

const permuteOp = defineOp<readonly number[]>({
  name: "permute",
  forward: (_context, [x], axes) =>
    x!.view(
      axes.map((axis) => x!.shape[axis]!),
      axes.map((axis) => x!.strides[axis]!),
    ),
  backward(context, dout) {
    const inverse = new Array<number>(dout.rank);
    for (const [to, from] of context.options.entries()) inverse[from] = to;
    return [permute(dout, inverse)];
  },
});

/** A view with the axes in another order: axis `i` of the result is axis `axes[i]` of `x`. */
export function permute(x: Tensor, axes: readonly number[]): Tensor {
  checkTensor("permute", "x", x);
  if (!Array.isArray(axes)) {
    throw new ShapeError(`[permute] axes must be an array of integers; received ${JSON.stringify(axes)}.`);
  }
  const order = axes.map((axis) => normalizeAxis("permute", axis, x.rank));
  if (order.length !== x.rank || new Set(order).size !== x.rank) {
    throw new ShapeError(`[permute] axes must name each of the ${x.rank} axes once; received ${formatShape(axes)}.`);
  }
  return permuteOp([x], order);
}

/** A view with two axes exchanged, by default the last two. */
export function transpose(x: Tensor, a = -2, b = -1): Tensor {
  checkTensor("transpose", "x", x);
  const axes = x.shape.map((_, axis) => axis);
  const i = normalizeAxis("transpose", a, x.rank);
  const j = normalizeAxis("transpose", b, x.rank);
  [axes[i], axes[j]] = [axes[j]!, axes[i]!];
  return permuteOp([x], axes);
}

interface Range {
  axis: number;
  start: number;
  end: number;
}

function sliceView(x: Tensor, { axis, start, end }: Range): Tensor {
  return x.view(x.shape.with(axis, end - start), x.strides, start * x.strides[axis]!);
}

const sliceOp = defineOp<Range>({
  name: "slice",
  forward: (_context, [x], range) => sliceView(x!, range),
  backward({ shapes: [shape], options }, dout) {
    const dx = full(shape!, 0, { dtype: dout.dtype });
    engine().op.copy(dout.handle, sliceView(dx, options).handle);
    return [dx];
  },
});

/** A view of the elements `start ≤ i < end` on one axis; negative positions count from the end of the axis. */
export function slice(x: Tensor, axis: number, start: number, end?: number): Tensor {
  checkTensor("slice", "x", x);
  const on = normalizeAxis("slice", axis, x.rank);
  const n = x.shape[on]!;
  const place = (i: number) => (i < 0 ? i + n : i);
  const range = { axis: on, start: place(start), end: place(end ?? n) };
  const valid = Number.isInteger(range.start) && Number.isInteger(range.end) && 0 <= range.start && range.end <= n;
  if (!valid || range.start > range.end) {
    throw new ShapeError(`[slice] ${start}..${end ?? n} is no range within axis ${axis} of ${formatShape(x.shape)}.`);
  }
  return sliceOp([x], range);
}

const expandOp = defineOp<Shape>({
  name: "expand",
  forward: (_context, [x], shape) => expandView(x!, shape),
  backward: ({ shapes: [shape] }, dout) => [sumTo(dout, shape!)],
});

/** A view repeated along axes of size 1 (or new leading ones) to `shape`, without memory of its own. */
export function expand(x: Tensor, shape: Shape): Tensor {
  checkTensor("expand", "x", x);
  checkShape("expand", shape);
  const lead = shape.length - x.rank;
  const fits = lead >= 0 && x.shape.every((n, axis) => n === 1 || n === shape[axis + lead]);
  if (!fits) throw new ShapeError(`[expand] ${formatShape(x.shape)} doesn't broadcast to ${formatShape(shape)}.`);
  return expandOp([x], shape);
}
