import { engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { Tensor } from "../tensor.js";
import { checkFloating, rows } from "./arguments.js";

const softmaxOp = defineOp<undefined>({
  name: "softmax",
  forward(context, [x]) {
    const y = Tensor.allocate(x!.dtype, x!.shape);
    engine().op.softmax(rows(x!).handle, y.handle);
    context.save(y);
    return y;
  },
  backward({ saved: [y] }, dout) {
    const dx = Tensor.allocate(dout.dtype, dout.shape);
    engine().op.softmaxGrad(y!.handle, rows(dout).handle, dx.handle);
    return [dx];
  },
});

/**
 * `exp(x) / Σ exp(x)` over the last axis, the maximum subtracted first. A row of −∞ gives zeros.
 *
 * @param x - `[…, N]`
 */
export function softmax(x: Tensor): Tensor {
  checkFloating("softmax", { x });
  if (x.rank === 0) throw new ShapeError("[softmax] expected at least one axis; received a scalar.");
  return softmaxOp([x], undefined);
}
