import { engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { onDevice } from "../device.js";
import { accumulationDType } from "../dtype.js";
import { scope } from "../scope.js";
import { formatShape, sameShape } from "../shape.js";
import { currentTape } from "../tape.js";
import { Tensor } from "../tensor.js";
import { checkFloating, leadingSize, rows } from "./arguments.js";
import { linearMany, manyRows } from "./linear-many.js";
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

/**
 * `swiglu` of two fully connected layers of one input, `silu(x · gateᵀ) ∘ (x · upᵀ)`: of few rows without a gradient one pass over the weights.
 *
 * @param x - `[…, I]`
 * @param gate - `[F, I]`
 * @param up - `[F, I]`
 * @returns `[…, F]`
 * @throws {ShapeError} if the sizes don't fit
 */
export function swigluLinear(x: Tensor, gate: Tensor, up: Tensor): Tensor {
  const where = "swigluLinear";
  checkFloating(where, { x, gate, up });
  if (gate.rank !== 2 || !sameShape(gate.shape, up.shape) || x.rank === 0 || x.shape.at(-1) !== gate.shape[1]) {
    throw new ShapeError(
      `[${where}] expected x […, I], gate and up [F, I]; received ${formatShape(x.shape)}, ${formatShape(gate.shape)} and ${formatShape(up.shape)}.`,
    );
  }
  // The CPU multiplies 16-bit weights as they are, but would make them wide for an operation that isn't all products.
  const widens = x.device === "cpu" && accumulationDType(x.dtype) !== x.dtype;
  const needsGradient = currentTape()?.needsOf(where, [x, gate, up]) !== undefined;
  const size = leadingSize(x.shape) * gate.size;
  if (widens || needsGradient || size === 0 || leadingSize(x.shape) >= manyRows) {
    return scope(() => swiglu(...linearMany(x, [gate, up] as const)));
  }
  return onDevice(x.deviceNumber, () =>
    scope(() => {
      const out = Tensor.allocate(x.dtype, x.shape.with(-1, gate.shape[0]!));
      engine().op.swigluLinear(rows(x).handle, rows(gate).handle, rows(up).handle, out.handle);
      return out;
    }),
  );
}
