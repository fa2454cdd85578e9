import { engine } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { accumulationDType, checkDType, type DType } from "../dtype.js";
import { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";

const castOp = defineOp<{ from: DType; to: DType }>({
  name: "astype",
  forward(_context, [x], { to }) {
    const out = Tensor.allocate(to, x!.shape);
    engine().op.copy(x!.handle, out.handle);
    return out;
  },
  backward: ({ options: { from } }, dout) => [astype(dout, from)],
});

/** A copy with another element type: rounded to nearest even, floats truncated to integers, bool is `x ≠ 0`. */
export function astype(x: Tensor, dtype: DType): Tensor {
  checkTensor("astype", "x", x);
  checkDType("astype", dtype);
  return castOp([x], { from: x.dtype, to: dtype });
}

/** `x` in the dtype in which its numbers are added up: float32 for bfloat16 and float16. @internal */
export function widened(x: Tensor): Tensor {
  const dtype = accumulationDType(x.dtype);
  return x.dtype === dtype ? x : astype(x, dtype);
}
