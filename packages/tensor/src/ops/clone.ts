import { engine } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { Tensor } from "../tensor.js";

const cloneOp = defineOp<undefined>({
  name: "clone",
  forward(_context, [x]) {
    const out = Tensor.allocate(x!.dtype, x!.shape);
    engine().op.copy(x!.handle, out.handle);
    return out;
  },
  backward: (_context, dout) => [dout],
});

/** A copy with memory of its own, in row-major order. */
export function clone(x: Tensor): Tensor {
  return cloneOp([x], undefined);
}

/** The same values, in the same memory, as a constant: no gradient flows through it. */
export function detach(x: Tensor): Tensor {
  return x.view(x.shape, x.strides);
}
