import { engine, OptionError, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { accumulationDType } from "../dtype.js";
import { formatShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating, contiguous, rows } from "./arguments.js";

const rmsNormOp = defineOp<number>({
  name: "rmsNorm",
  forward(context, [x, weight], eps) {
    const y = Tensor.allocate(x!.dtype, x!.shape);
    const rstd = Tensor.allocate(accumulationDType(x!.dtype), x!.shape.slice(0, -1));
    const [input, scale] = [rows(x!), contiguous(weight!)];
    engine().op.rmsNorm(input.handle, scale.handle, eps, y.handle, rstd.handle);
    context.save(input, scale, rstd);
    return y;
  },
  backward({ saved: [x, weight, rstd] }, dout) {
    const dx = Tensor.allocate(dout.dtype, x!.shape);
    const dweight = Tensor.allocate(dout.dtype, weight!.shape);
    engine().op.rmsNormGrad(rows(dout).handle, x!.handle, weight!.handle, rstd!.handle, dx.handle, dweight.handle);
    return [dx, dweight];
  },
});

export interface RmsNormOptions {
  /** Added to the mean square; default 1e-5. */
  eps?: number;
}

/**
 * Root-mean-square norm over the last axis, `y = x / √(mean(x²) + eps) ∘ weight` (Zhang and Sennrich 2019).
 *
 * @param x - `[…, C]`
 * @param weight - `[C]`
 */
export function rmsNorm(x: Tensor, weight: Tensor, options: RmsNormOptions = {}): Tensor {
  const { eps = 1e-5 } = options;
  checkFloating("rmsNorm", { x, weight });
  if (x.rank === 0 || weight.rank !== 1 || x.shape.at(-1) !== weight.size) {
    throw new ShapeError(
      `[rmsNorm] expected x […, C] and weight [C]; received ${formatShape(x.shape)} and ${formatShape(weight.shape)}.`,
    );
  }
  if (!(eps >= 0)) throw new OptionError(`[rmsNorm] eps must be ≥ 0; received ${eps}.`);
  return rmsNormOp([x, weight], eps);
}
