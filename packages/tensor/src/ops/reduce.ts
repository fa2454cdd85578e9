import { engine, ReduceOp, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { formatShape, normalizeAxis, type Shape, sizeOf } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating } from "./arguments.js";
import { equal } from "./binary.js";
import { full } from "./creation.js";
import { expandView, reshape } from "./views.js";

export interface ReduceOptions {
  /** Axis or axes to reduce, negative from the end; default all. */
  axis?: number | readonly number[];
  /** Keep reduced axes with size 1. */
  keepDims?: boolean;
}

type Name = keyof typeof ReduceOp;

interface Reduction {
  name: Name;
  axes: readonly number[];
}

function keptShape(shape: Shape, axes: readonly number[]): number[] {
  return shape.map((n, axis) => (axes.includes(axis) ? 1 : n));
}

const reduceOp = defineOp<Reduction>({
  name: "reduce",
  forward(context, [x], { name, axes }) {
    const shape = keptShape(x!.shape, axes);
    if (x!.size === 0 && sizeOf(shape) > 0) {
      if (name !== "sum")
        throw new ShapeError(`[${name}] there is nothing to reduce in shape ${formatShape(x!.shape)}.`);
      return full(shape, 0, { dtype: x!.dtype });
    }
    const out = Tensor.allocate(x!.dtype, shape);
    engine().op.reduce(ReduceOp[name], x!.handle, out.handle);
    if (name === "max" || name === "min") context.save(x!, out);
    return out;
  },
  backward({ saved: [x, out], shapes: [shape], options: { name, axes } }, dout) {
    const spread = (g: Tensor) => expandView(g, shape!);
    if (name === "sum") return [spread(dout)];
    if (name === "mean") {
      const count = axes.reduce((n, axis) => n * shape![axis]!, 1);
      return [spread(dout.div(count))];
    }
    // Elements that tie for the extreme share the gradient.
    const hits = equal(x!, out!).astype(dout.dtype);
    return [hits.mul(dout.div(sum(hits, { axis: axes, keepDims: true })))];
  },
});

function reduce(name: Name, x: Tensor, options: ReduceOptions = {}): Tensor {
  checkFloating(name, { x });
  const { axis, keepDims = false } = options;
  const listed = axis === undefined ? x.shape.map((_, i) => i) : typeof axis === "number" ? [axis] : axis;
  const axes = [...new Set(listed.map((a) => normalizeAxis(name, a, x.rank)))];
  const out = reduceOp([x], { name, axes });
  if (keepDims) return out;
  const flat = reshape(
    out,
    x.shape.filter((_, i) => !axes.includes(i)),
  );
  out.dispose();
  return flat;
}

export function sum(x: Tensor, options?: ReduceOptions): Tensor {
  return reduce("sum", x, options);
}
export function mean(x: Tensor, options?: ReduceOptions): Tensor {
  return reduce("mean", x, options);
}
/** The largest elements; NaN if there is one. */
export function max(x: Tensor, options?: ReduceOptions): Tensor {
  return reduce("max", x, options);
}
/** The smallest elements; NaN if there is one. */
export function min(x: Tensor, options?: ReduceOptions): Tensor {
  return reduce("min", x, options);
}
