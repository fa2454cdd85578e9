import { engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { normalizeAxis } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating } from "./arguments.js";

export interface SoftmaxOptions {
  /** The axis that is normalised, negative from the end; default the last. */
  axis?: number;
}

/** A view of the same memory with `axis` exchanged for the last one, where the kernels work. */
function withLast(x: Tensor, axis: number): Tensor {
  const exchanged = (of: readonly number[]) =>
    of.map((n, i) => (i === axis ? of.at(-1)! : i === of.length - 1 ? of[axis]! : n));
  return x.view(exchanged(x.shape), exchanged(x.strides));
}

function define(name: "softmax" | "logSoftmax") {
  return defineOp<{ axis: number }>({
    name,
    forward(context, [x], { axis }) {
      const y = Tensor.allocate(x!.dtype, x!.shape);
      engine().op[name](withLast(x!, axis).handle, withLast(y, axis).handle);
      context.save(y);
      return y;
    },
    backward({ saved: [y], options: { axis } }, dout) {
      const dx = Tensor.allocate(dout.dtype, dout.shape);
      engine().op[`${name}Grad`](withLast(y!, axis).handle, withLast(dout, axis).handle, withLast(dx, axis).handle);
      return [dx];
    },
  });
}

const operations = { softmax: define("softmax"), logSoftmax: define("logSoftmax") };

function apply(name: keyof typeof operations, x: Tensor, { axis = -1 }: SoftmaxOptions): Tensor {
  checkFloating(name, { x });
  if (x.rank === 0) throw new ShapeError(`[${name}] expected at least one axis; received a scalar.`);
  return operations[name]([x], { axis: normalizeAxis(name, axis, x.rank) });
}

/** `exp(x) / Σ exp(x)` along an axis, the maximum subtracted first. A row of −∞ gives zeros. */
export function softmax(x: Tensor, options: SoftmaxOptions = {}): Tensor {
  return apply("softmax", x, options);
}

/** `ln softmax(x)`, as `(x − max) − ln Σ exp(x − max)`: exact where the softmax itself is 0. A row of −∞ stays. */
export function logSoftmax(x: Tensor, options: SoftmaxOptions = {}): Tensor {
  return apply("logSoftmax", x, options);
}
