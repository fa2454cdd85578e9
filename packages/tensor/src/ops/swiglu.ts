import { engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { formatShape, sameShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating, rows } from "./arguments.js";
import { pieces } from "./slice.js";

const swigluOp = defineOp<undefined>({
  name: "swiglu",
  forward(context, [gate, up]) {
    const [g, u] = [rows(gate!), rows(up!)];
    const out = Tensor.allocate(g.dtype, g.shape);
    engine().op.swiglu(g.handle, u.handle, out.handle);
    context.save(g, u);
    return out;
  },
  backward({ saved: [gate, up] }, dout) {
    // Side by side, as `split` of a product for both would have them.
    const F = dout.shape.at(-1)!;
    const both = Tensor.allocate(dout.dtype, dout.shape.with(-1, 2 * F));
    const [dgate, dup] = pieces(both, dout.rank - 1, [F, F]) as [Tensor, Tensor];
    engine().op.swigluGrad(rows(dout).handle, gate!.handle, up!.handle, dgate.handle, dup.handle);
    return [dgate, dup];
  },
});

/** The gated unit `silu(gate) ∘ up` (Shazeer 2020); both of one shape. */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  checkFloating("swiglu", { gate, up });
  if (!sameShape(gate.shape, up.shape) || gate.rank === 0) {
    throw new ShapeError(
      `[swiglu] gate and up must have one shape; received ${formatShape(gate.shape)} and ${formatShape(up.shape)}.`,
    );
  }
  return swigluOp([gate, up], undefined);
}
