import { engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { onDevice } from "../device.js";
import { scope } from "../scope.js";
import { formatShape, sameShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating, rows } from "./arguments.js";
import { areFew, type LinearManyOptions, linearMany, normArguments, widens } from "./linear-many.js";
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
 * @param options.norm - the layers are of the RMS norm of `x`
 * @returns `[…, F]`
 * @throws {ShapeError} if the sizes don't fit
 */
export function swigluLinear(x: Tensor, gate: Tensor, up: Tensor, { norm }: LinearManyOptions = {}): Tensor {
  const where = "swigluLinear";
  checkFloating(where, { x, gate, up });
  if (gate.rank !== 2 || !sameShape(gate.shape, up.shape) || x.rank === 0 || x.shape.at(-1) !== gate.shape[1]) {
    throw new ShapeError(
      `[${where}] expected x […, I], gate and up [F, I]; received ${formatShape(x.shape)}, ${formatShape(gate.shape)} and ${formatShape(up.shape)}.`,
    );
  }
  if (widens(x) || !areFew(where, x, [gate, up], norm && [norm.weight])) {
    return scope(() => swiglu(...linearMany(x, [gate, up] as const, { norm })));
  }
  return onDevice(x.deviceNumber, () =>
    scope(() => {
      const out = Tensor.allocate(x.dtype, x.shape.with(-1, gate.shape[0]!));
      const weights = [rows(gate).handle, rows(up).handle] as const;
      engine().op.swigluLinear(rows(x).handle, ...normArguments(where, x, norm), ...weights, out.handle);
      return out;
    }),
  );
}
