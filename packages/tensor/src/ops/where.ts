import { DTypeError, engine } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { broadcastShapes } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";
import { sumTo } from "./binary.js";
import { zerosLike } from "./creation.js";
import { expandView } from "./views.js";

const whereOp = defineOp<undefined>({
  name: "where",
  forward(context, [condition, a, b]) {
    checkTensor("where", "condition", condition);
    checkTensor("where", "a", a);
    checkTensor("where", "b", b);
    if (condition.dtype !== "bool" || a.dtype !== b.dtype) {
      throw new DTypeError(
        `[where] expected a bool condition and two tensors of one dtype; received ${condition.dtype}, ${a.dtype}, ${b.dtype}.`,
      );
    }
    const shape = broadcastShapes("where", broadcastShapes("where", a.shape, b.shape), condition.shape);
    const out = Tensor.allocate(a.dtype, shape);
    const view = (x: Tensor) => expandView(x, shape).handle;
    engine().op.where(view(condition), view(a), view(b), out.handle);
    context.save(condition);
    return out;
  },
  backward({ needs, saved: [condition], shapes }, dout) {
    const zero = zerosLike(dout);
    return [
      null,
      needs[1] ? sumTo(where(condition!, dout, zero), shapes[1]!) : null,
      needs[2] ? sumTo(where(condition!, zero, dout), shapes[2]!) : null,
    ];
  },
});

/** `condition ? a : b` element by element, all broadcast together; `condition` is bool. */
export function where(condition: Tensor, a: Tensor, b: Tensor): Tensor {
  return whereOp([condition, a, b], undefined);
}
