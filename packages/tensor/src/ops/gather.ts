import { DTypeError, engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { formatShape, normalizeAxis, type Shape, sameShape } from "../shape.js";
import { noGrad } from "../tape.js";
import { rememberCallSite, Tensor } from "../tensor.js";
import { checkComparable, checkCount, checkIds, checkTensor } from "./arguments.js";
import { astype } from "./cast.js";
import { clone } from "./clone.js";
import { filled, type TensorOptions } from "./creation.js";
import { expandView } from "./views.js";

/** `out[…, indices[…, i, …], …] += x[…, i, …]`, in place. */
function addAt(out: Tensor, axis: number, indices: Tensor, x: Tensor): Tensor {
  rememberCallSite(engine().op.scatterAdd(x.handle, indices.handle, axis, out.handle));
  return out;
}

const gatherOp = defineOp<number>({
  name: "gather",
  inputNames: ["x", "indices"],
  forward(context, [x, indices], axis) {
    const out = Tensor.allocate(x!.dtype, indices!.shape);
    rememberCallSite(engine().op.gather(x!.handle, indices!.handle, axis, out.handle));
    context.save(indices!);
    return out;
  },
  backward: ({ saved: [indices], shapes: [shape], options: axis }, dout) => [
    addAt(filled(0, dout.dtype, shape!), axis, indices!, dout),
    null,
  ],
});

const scatterAddOp = defineOp<number>({
  name: "scatterAdd",
  inputNames: ["x", "indices", "src"],
  forward(context, [x, indices, src], axis) {
    context.save(indices!);
    return addAt(clone(x!), axis, indices!, src!);
  },
  backward: ({ needs, saved: [indices], options: axis }, dout) => [
    needs[0] ? dout : null,
    null,
    needs[2] ? gatherOp([dout, indices!], axis) : null,
  ],
});

/** The axis, if `indices` fit `x`: as many axes, none of the others longer, and something to choose from. */
function checkIndices(where: string, x: Tensor, axis: number, indices: Tensor): number {
  checkTensor(where, "x", x);
  checkIds(where, "indices", indices);
  const on = normalizeAxis(where, axis, x.rank);
  const fits = indices.rank === x.rank && indices.shape.every((n, i) => i === on || n <= x.shape[i]!);
  if (!fits) {
    throw new ShapeError(
      `[${where}] indices must have the axes of x, none longer but axis ${axis}; received ${formatShape(indices.shape)} for x ${formatShape(x.shape)}. Use expand() to repeat them.`,
    );
  }
  checkChoice(where, x.shape, on, indices);
  return on;
}

/** An empty axis has no elements to name; kernels are not asked about empty arrays. */
function checkChoice(where: string, shape: Shape, axis: number, indices: Tensor): void {
  if (indices.size > 0 && shape[axis] === 0) {
    throw new ShapeError(`[${where}] axis ${axis} of ${formatShape(shape)} has no elements to choose from.`);
  }
}

/** `[N]` ids stretched over the other axes, in no memory of their own: one for each row along `axis`. */
function overAxis(where: string, x: Tensor, axis: number, ids: Tensor): { on: number; indices: Tensor } {
  checkTensor(where, "x", x);
  checkIds(where, "ids", ids);
  if (ids.rank !== 1) throw new ShapeError(`[${where}] ids must be [N]; received ${formatShape(ids.shape)}.`);
  const on = normalizeAxis(where, axis, x.rank);
  checkChoice(where, x.shape, on, ids);
  const strides = x.shape.map((_, i) => (i === on ? ids.strides[0]! : 0));
  return { on, indices: ids.view(x.shape.with(on, ids.size), strides) };
}

/**
 * Elements by position along an axis, `out[…, i, …] = x[…, indices[…, i, …], …]` (`torch.gather`, `jnp.take_along_axis`).
 *
 * @param indices - int32, as many axes as `x`; each but `axis` at most as long as that of `x`
 * @returns the shape of `indices`
 * @throws {IndexOutOfRangeError} when the values are read, if an index is outside the axis
 *
 * @example
 * const picked = gather(logProbabilities, -1, unsqueeze(targets, -1)); // [N, 1] of [N, V]
 */
export function gather(x: Tensor, axis: number, indices: Tensor): Tensor {
  return gatherOp([x, indices], checkIndices("gather", x, axis, indices));
}

/**
 * `x` with `src` added at positions along an axis, `out[…, indices[…, i, …], …] += src[…, i, …]`. Equal positions add up in order.
 *
 * @param x - floating-point (16-bit numbers add up in float32) or int32
 * @param indices - as for `gather`
 * @param src - the shape of `indices`, the dtype of `x`
 * @throws {IndexOutOfRangeError} when the values are read, if an index is outside the axis
 */
export function scatterAdd(x: Tensor, axis: number, indices: Tensor, src: Tensor): Tensor {
  const on = checkIndices("scatterAdd", x, axis, indices);
  checkComparable("scatterAdd", "x", x);
  return scatterAddOp([x, indices, checkSource("scatterAdd", x, indices.shape, src)], on);
}

function checkSource(where: string, x: Tensor, shape: Shape, src: Tensor): Tensor {
  checkTensor(where, "src", src);
  if (x.dtype !== src.dtype) {
    throw new DTypeError(`[${where}] dtypes differ: x is ${x.dtype} and src is ${src.dtype}. Use astype().`);
  }
  if (!sameShape(src.shape, shape)) {
    throw new ShapeError(`[${where}] src must be ${formatShape(shape)}; received ${formatShape(src.shape)}.`);
  }
  return src;
}

/** Rows of an axis by number, `out[…, i, …] = x[…, ids[i], …]`; `ids` is int32 `[N]`. */
export function indexSelect(x: Tensor, axis: number, ids: Tensor): Tensor {
  const { on, indices } = overAxis("indexSelect", x, axis, ids);
  using all = indices;
  return gatherOp([x, all], on);
}

/**
 * Copies rows to those of an axis by number, `target[…, ids[i], …] = source[…, i, …]`, in place. No gradient flows.
 *
 * @param ids - int32 `[N]`, all different: which one of two rows with the same number stays is not said
 * @param source - the shape of `target` with `N` rows, and its dtype
 * @throws {IndexOutOfRangeError} when the values of `target` are read, if an id is outside the axis
 *
 * @example
 * indexCopyInto(cache, 0, positions, rows); // cache[positions[i]] = rows[i]
 */
export function indexCopyInto(target: Tensor, axis: number, ids: Tensor, source: Tensor): Tensor {
  const { on, indices } = overAxis("indexCopyInto", target, axis, ids);
  using all = indices;
  checkSource("indexCopyInto", target, all.shape, source);
  // Rows of the target's own memory are read before any is written.
  using apart = engine().haveSharedMemory(source.handle, target.handle) ? noGrad(() => clone(source)) : undefined;
  rememberCallSite(engine().op.scatter((apart ?? source).handle, all.handle, on, target.handle));
  return target;
}

/** `x` with rows added to those of an axis, `out[…, ids[i], …] += src[…, i, …]`; equal ids add up in order. */
export function indexAdd(x: Tensor, axis: number, ids: Tensor, src: Tensor): Tensor {
  const { on, indices } = overAxis("indexAdd", x, axis, ids);
  using all = indices;
  checkComparable("indexAdd", "x", x);
  return scatterAddOp([x, all, checkSource("indexAdd", x, all.shape, src)], on);
}

/**
 * Unit vectors, `out[…, c] = 1` where `c = ids[…]`, else 0.
 *
 * @param ids - int32
 * @param options.dtype - default float32
 * @throws {IndexOutOfRangeError} when the values are read, if an id is outside `0..classes-1`
 */
export function oneHot(ids: Tensor, classes: number, options: Pick<TensorOptions, "dtype"> = {}): Tensor {
  checkIds("oneHot", "ids", ids);
  checkCount("oneHot", "classes", classes);
  const { dtype = "float32" } = options;
  const computed = dtype === "float64" || dtype === "int32" ? dtype : "float32";
  const out = filled(0, computed, [...ids.shape, classes], ids.deviceNumber);
  checkChoice("oneHot", out.shape, ids.rank, ids);
  using one = filled(1, computed, [], ids.deviceNumber);
  using column = ids.view([...ids.shape, 1], [...ids.strides, 1]);
  using ones = expandView(one, column.shape);
  addAt(out, ids.rank, column, ones);
  if (dtype === computed) return out;
  using wide = out;
  return astype(wide, dtype);
}
