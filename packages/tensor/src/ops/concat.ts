import { DTypeError, engine, OptionError, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { scope } from "../scope.js";
import { formatShape, normalizeAxis, sameShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";
import { sliceView } from "./slice.js";
import { unsqueeze } from "./views.js";

const concatOp = defineOp<number>({
  name: "concat",
  forward(_context, inputs, axis) {
    const total = inputs.reduce((n, x) => n + x.shape[axis]!, 0);
    const out = Tensor.allocate(inputs[0]!.dtype, inputs[0]!.shape.with(axis, total));
    let start = 0;
    for (const x of inputs) {
      const n = x.shape[axis]!;
      engine().op.copy(x.handle, sliceView(out, axis, start, n).handle);
      start += n;
    }
    return out;
  },
  backward({ needs, shapes, options: axis }, dout) {
    let start = 0;
    return shapes.map((shape, i) => {
      const first = start;
      start += shape[axis]!;
      return needs[i] ? sliceView(dout, axis, first, shape[axis]!) : null;
    });
  },
});

/** Tensors one after another along an axis; the other axes and the dtypes must agree. */
export function concat(tensors: readonly Tensor[], axis = 0): Tensor {
  const first = tensors[0];
  if (first === undefined) throw new OptionError("[concat] expected at least one tensor; received none.");
  for (const [i, x] of tensors.entries()) checkTensor("concat", `tensors[${i}]`, x);
  const along = normalizeAxis("concat", axis, first.rank);
  for (const x of tensors) {
    if (x.dtype !== first.dtype)
      throw new DTypeError(`[concat] dtypes differ: ${first.dtype} and ${x.dtype}. Use astype().`);
    if (x.rank !== first.rank || x.shape.some((n, i) => i !== along && n !== first.shape[i])) {
      throw new ShapeError(
        `[concat] shapes must agree except on axis ${axis}; received ${formatShape(first.shape)} and ${formatShape(x.shape)}.`,
      );
    }
  }
  return concatOp(tensors, along);
}

/**
 * Tensors of one shape along a new axis: `[2, 3]` and `[2, 3]` give `[2, 2, 3]`.
 *
 * @param axis - the place of the new axis in the result
 */
export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  const first = tensors[0];
  if (first === undefined) throw new OptionError("[stack] expected at least one tensor; received none.");
  for (const [i, x] of tensors.entries()) {
    checkTensor("stack", `tensors[${i}]`, x);
    if (!sameShape(x.shape, first.shape)) {
      throw new ShapeError(
        `[stack] shapes must be equal; received ${formatShape(first.shape)} and ${formatShape(x.shape)}.`,
      );
    }
  }
  const along = normalizeAxis("stack", axis, first.rank + 1);
  return scope(() =>
    concat(
      tensors.map((x) => unsqueeze(x, along)),
      along,
    ),
  );
}
