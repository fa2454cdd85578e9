import { DTypeError, engine } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { scope } from "../scope.js";
import { broadcastShapes } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkTensor } from "./arguments.js";
import { operands, sumTo } from "./binary.js";
import { expandView } from "./views.js";

const whereOp = defineOp<undefined>({
  name: "where",
  inputNames: ["condition", "a", "b"],
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
    return [
      null,
      needs[1] ? sumTo(where(condition!, dout, 0), shapes[1]!) : null,
      needs[2] ? sumTo(where(condition!, 0, dout), shapes[2]!) : null,
    ];
  },
});

/**
 * `condition ? a : b` element by element, all broadcast together. One of `a` and `b` may be a number.
 *
 * @param condition - bool
 *
 * @example
 * where(greater(x, 0), x, 0); // relu(x)
 */
export function where(condition: Tensor, a: Tensor | number, b: Tensor | number): Tensor {
  if (a instanceof Tensor && b instanceof Tensor) return whereOp([condition, a, b], undefined);
  return scope(() => whereOp([condition, ...operands("where", a, b)], undefined));
}
