import { DTypeError, OptionError, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { formatShape, normalizeAxis } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";
import { copyInto } from "./creation.js";
import { slice } from "./views.js";

const concatOp = defineOp<number>({
  name: "concat",
  forward(_context, inputs, axis) {
    const total = inputs.reduce((n, x) => n + x.shape[axis]!, 0);
    const out = Tensor.allocate(inputs[0]!.dtype, inputs[0]!.shape.with(axis, total));
    let start = 0;
    for (const x of inputs) {
      copyInto(slice(out, axis, start, start + x.shape[axis]!), x);
      start += x.shape[axis]!;
    }
    return out;
  },
  backward({ needs, shapes, options: axis }, dout) {
    let start = 0;
    return shapes.map((shape, i) => {
      const end = start + shape[axis]!;
      const part = needs[i] ? slice(dout, axis, start, end) : null;
      start = end;
      return part;
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
