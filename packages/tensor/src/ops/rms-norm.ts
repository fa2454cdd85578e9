import { engine, OptionError, ShapeError } from "@llmeff/native";
import { type BackwardContext, defineOp, type ForwardContext } from "../autograd.js";
import { accumulationDType } from "../dtype.js";
import { formatShape, sameShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating, contiguous, rows } from "./arguments.js";

interface Settings {
  eps: number;
  /** Added to every weight. */
  weightOffset: number;
}

/** The norm of `x`, or of `x + residual`, which is written to `sum`. */
function compute(
  context: ForwardContext,
  x: Tensor,
  addition: { residual: Tensor; sum: Tensor } | undefined,
  weight: Tensor,
  { eps, weightOffset }: Settings,
): Tensor {
  const y = Tensor.allocate(x.dtype, x.shape);
  const rstd = context.recording ? Tensor.allocate(accumulationDType(x.dtype), x.shape.slice(0, -1)) : undefined;
  const [input, scale] = [rows(x), contiguous(weight)];
  const [residual, sum] = addition ? [rows(addition.residual), addition.sum] : [];
  engine().op.rmsNorm(
    input.handle,
    residual?.handle ?? null,
    scale.handle,
    weightOffset,
    eps,
    sum?.handle ?? null,
    y.handle,
    rstd?.handle ?? null,
  );
  if (rstd) context.save(sum ?? input, scale, rstd);
  return y;
}

function gradients({ saved, options }: BackwardContext<Settings>, dy: Tensor, dsum: Tensor | null): [Tensor, Tensor] {
  const [x, weight, rstd] = saved as [Tensor, Tensor, Tensor];
  const dx = Tensor.allocate(dy.dtype, x.shape);
  const dweight = Tensor.allocate(dy.dtype, weight.shape);
  engine().op.rmsNormGrad(
    rows(dy).handle,
    dsum && rows(dsum).handle,
    x.handle,
    weight.handle,
    options.weightOffset,
    rstd.handle,
    dx.handle,
    dweight.handle,
  );
  return [dx, dweight];
}

const rmsNormOp = defineOp<Settings>({
  name: "rmsNorm",
  forward: (context, [x, weight], settings) => compute(context, x!, undefined, weight!, settings),
  backward: (context, dy) => gradients(context, dy, null),
});

const addRmsNormOp = defineOp<Settings, readonly [sum: Tensor, y: Tensor]>({
  name: "addRmsNorm",
  forward(context, [x, residual, weight], settings) {
    const sum = Tensor.allocate(x!.dtype, x!.shape);
    return [sum, compute(context, x!, { residual: residual!, sum }, weight!, settings)];
  },
  backward(context, [dsum, dy]) {
    if (dy === null) return [dsum, dsum, null];
    const [dx, dweight] = gradients(context, dy, dsum);
    return [dx, dx, dweight];
  },
});

export interface RmsNormOptions {
  /** Added to the mean square; default 1e-5. */
  eps?: number;
  /** Multiply by `1 + weight`, as Gemma does, so that weights near 0 are near the identity; default false. */
  plusOne?: boolean;
}

/** @internal */
export function settingsOf(where: string, x: Tensor, weight: Tensor, { eps = 1e-5, plusOne = false }: RmsNormOptions) {
  if (x.rank === 0 || weight.rank !== 1 || x.shape.at(-1) !== weight.size) {
    throw new ShapeError(
      `[${where}] expected x […, C] and weight [C]; received ${formatShape(x.shape)} and ${formatShape(weight.shape)}.`,
    );
  }
  if (!(eps >= 0)) throw new OptionError(`[${where}] eps must be ≥ 0; received ${eps}.`);
  return { eps, weightOffset: plusOne ? 1 : 0 };
}

/**
 * Root-mean-square norm over the last axis, `y = x / √(mean(x²) + eps) ∘ weight` (Zhang and Sennrich 2019).
 *
 * @param x - `[…, C]`
 * @param weight - `[C]`
 */
export function rmsNorm(x: Tensor, weight: Tensor, options: RmsNormOptions = {}): Tensor {
  checkFloating("rmsNorm", { x, weight });
  return rmsNormOp([x, weight], settingsOf("rmsNorm", x, weight, options));
}

/** What a block adds to the residual stream must have the stream's shape. @internal */
export function checkResidual(where: string, x: Tensor, residual: Tensor): void {
  if (sameShape(x.shape, residual.shape)) return;
  throw new ShapeError(
    `[${where}] x and residual must have one shape; received ${formatShape(x.shape)} and ${formatShape(residual.shape)}.`,
  );
}

/**
 * `sum = x + residual` and `y = rmsNorm(sum)` in one pass over memory, as between the sublayers of a Transformer; so are their gradients.
 *
 * @param x - `[…, C]`
 * @param residual - the shape of `x`
 * @param weight - `[C]`
 * @returns `[sum, y]`
 *
 * @example
 * const [stream, normed] = addRmsNorm(x, attended, weight);
 */
export function addRmsNorm(
  x: Tensor,
  residual: Tensor,
  weight: Tensor,
  options: RmsNormOptions = {},
): readonly [sum: Tensor, y: Tensor] {
  checkFloating("addRmsNorm", { x, residual, weight });
  checkResidual("addRmsNorm", x, residual);
  return addRmsNormOp([x, residual, weight], settingsOf("addRmsNorm", x, weight, options));
}
