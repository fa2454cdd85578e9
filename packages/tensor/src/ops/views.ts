import { OptionError, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import {
  checkShape,
  contiguousStrides,
  formatShape,
  normalizeAxes,
  normalizeAxis,
  reshapedStrides,
  type Shape,
  sameShape,
  sizeOf,
} from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";
import { sumTo } from "./binary.js";
import { clone } from "./clone.js";

/** A view of `x` stretched to `shape` by strides of 0; shapes must broadcast. No gradient. @internal */
export function expandView(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  const lead = shape.length - x.rank;
  const strides = shape.map((n, axis) => (axis < lead || x.shape[axis - lead] !== n ? 0 : x.strides[axis - lead]!));
  return x.view([...shape], strides);
}

const reshapeOp = defineOp<Shape>({
  name: "reshape",
  forward(_context, [x], shape) {
    const strides = reshapedStrides(x!.shape, x!.strides, shape);
    return strides ? x!.view(shape, strides) : clone(x!).view(shape, contiguousStrides(shape));
  },
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

/** A view with axis `from` moved to place `to`; the others keep their order. Lists move several. */
export function movedim(x: Tensor, from: number | readonly number[], to: number | readonly number[]): Tensor {
  checkTensor("movedim", "x", x);
  const sources = normalizeAxes("movedim", from, x.rank);
  const targets = normalizeAxes("movedim", to, x.rank);
  if (sources.length !== targets.length) {
    throw new ShapeError(
      `[movedim] expected as many places as axes; received ${sources.length} axes and ${targets.length} places.`,
    );
  }
  const rest = x.shape.map((_, axis) => axis).filter((axis) => !sources.includes(axis));
  const order = x.shape.map((_, place) => {
    const moved = targets.indexOf(place);
    return moved >= 0 ? sources[moved]! : rest.shift()!;
  });
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

/**
 * A view without axes of size 1: those named, or all.
 *
 * @throws {ShapeError} if a named axis has another size
 */
export function squeeze(x: Tensor, axis?: number | readonly number[]): Tensor {
  checkTensor("squeeze", "x", x);
  const axes =
    axis === undefined ? [...x.shape.keys()].filter((i) => x.shape[i] === 1) : normalizeAxes("squeeze", axis, x.rank);
  for (const i of axes) {
    if (x.shape[i] !== 1) {
      throw new ShapeError(`[squeeze] axis ${i} of ${formatShape(x.shape)} has size ${x.shape[i]}, not 1.`);
    }
  }
  return reshapeOp(
    [x],
    x.shape.filter((_, i) => !axes.includes(i)),
  );
}

/** A view with a new axis of size 1 at `axis` of the result (`expandDims`); negative places count from its end. */
export function unsqueeze(x: Tensor, axis: number): Tensor {
  checkTensor("unsqueeze", "x", x);
  const shape = x.shape.toSpliced(normalizeAxis("unsqueeze", axis, x.rank + 1), 0, 1);
  checkShape("unsqueeze", shape);
  return reshapeOp([x], shape);
}

/** The axes `start` to `end`, both included, as one: a view where the memory allows, else a copy. By default all. */
export function flatten(x: Tensor, start = 0, end = -1): Tensor {
  checkTensor("flatten", "x", x);
  if (x.rank === 0) return reshapeOp([x], [1]);
  const first = normalizeAxis("flatten", start, x.rank);
  const last = normalizeAxis("flatten", end, x.rank);
  if (first > last) throw new OptionError(`[flatten] start must not lie behind end; received ${start} and ${end}.`);
  const merged = sizeOf(x.shape.slice(first, last + 1));
  return reshapeOp([x], x.shape.toSpliced(first, last - first + 1, merged));
}
