import { DTypeError, OptionError, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { accumulationDType } from "../dtype.js";
import { scope } from "../scope.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkFloating } from "./arguments.js";
import { inDType, widened } from "./cast.js";
import { copyInto } from "./creation.js";
import { layerNorm } from "./layer-norm.js";
import { mean, sum } from "./reduce.js";
import { rsqrt } from "./unary.js";
import { reshape } from "./views.js";

export interface BatchNormOptions {
  /** Normalise by the statistics of the batch and update the running ones; else use the running ones. Default false. */
  training?: boolean;
  /** Weight of the batch in the running statistics; default 0.1. */
  momentum?: number;
  /** Added to the variance; default 1e-5. */
  eps?: number;
}

type Settings = Required<BatchNormOptions> & { runningMean: Tensor; runningVariance: Tensor };

/** `[C]` beside `[B, C, n]`. */
const perChannel = (tensor: Tensor) => reshape(tensor, [1, -1, 1]);
const overBatch = { axis: [0, 2], keepDims: true };

function blendInto(running: Tensor, statistic: Tensor, momentum: number): void {
  copyInto(
    running,
    running
      .detach()
      .mul(1 - momentum)
      .add(reshape(statistic, running.shape).mul(momentum)),
  );
}

/** Mean and biased variance of each channel; the running statistics move towards them. */
function batchStatistics(x: Tensor, { momentum, runningMean, runningVariance }: Settings) {
  const average = mean(x, overBatch);
  const variance = mean(x.sub(average).square(), overBatch);
  const count = x.shape[0]! * x.shape[2]!;
  blendInto(runningMean, average, momentum);
  blendInto(runningVariance, variance.mul(count / (count - 1)), momentum);
  return { average, variance };
}

/** Of `[B, C, n]`. */
const batchNormOp = defineOp<Settings>({
  name: "batchNorm",
  forward(context, [x, weight, bias], settings) {
    const { average, variance } = settings.training
      ? batchStatistics(x!, settings)
      : { average: perChannel(settings.runningMean), variance: perChannel(settings.runningVariance) };
    const rstd = rsqrt(variance.add(settings.eps));
    const centred = x!.sub(average);
    context.save(centred, rstd, weight!);
    return centred.mul(rstd.mul(perChannel(weight!))).add(perChannel(bias!));
  },
  backward({ saved: [centred, rstd, weight], options: { training } }, dout) {
    const normed = centred!.mul(rstd!);
    const dbias = sum(dout, overBatch);
    const dweight = sum(dout.mul(normed), overBatch);
    const slope = rstd!.mul(perChannel(weight!));
    const count = dout.shape[0]! * dout.shape[2]!;
    // The statistics of the batch depend on x too: their gradients remove the components along 1 and along the normed x.
    const through = training ? dout.sub(dbias.div(count)).sub(normed.mul(dweight.div(count))) : dout;
    return [through.mul(slope), reshape(dweight, weight!.shape), reshape(dbias, weight!.shape)];
  },
});

function checkChannels(where: string, x: Tensor, tensors: Record<string, Tensor>): void {
  if (x.rank < 2) throw new ShapeError(`[${where}] x must be [B, C, …]; received ${formatShape(x.shape)}.`);
  for (const [name, tensor] of Object.entries(tensors)) {
    if (tensor.rank === 1 && tensor.size === x.shape[1]) continue;
    throw new ShapeError(
      `[${where}] ${name} must be [${x.shape[1]}], one for each channel; received ${formatShape(tensor.shape)}.`,
    );
  }
}

/**
 * Batch norm of each channel, `y = (x − mean) / √(variance + eps) · weight + bias` (Ioffe and Szegedy 2015).
 *
 * In training the statistics are those of the batch over all axes but the channel's, and the running ones are updated in place,
 * `running = (1 − momentum) · running + momentum · batch`. As in PyTorch, the batch is normalised by its biased variance, while the running
 * variance takes the unbiased one. Otherwise the running statistics are used as they are.
 *
 * @param x - `[B, C, …]`
 * @param weight - `[C]`
 * @param bias - `[C]`
 * @param runningMean - `[C]`, float32 for 16-bit `x`, whose roundings would hold it up on its way
 * @param runningVariance - `[C]`, as `runningMean`
 * @throws {ShapeError} in training, if there is only one value in a channel
 */
export function batchNorm(
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  runningMean: Tensor,
  runningVariance: Tensor,
  options: BatchNormOptions = {},
): Tensor {
  const { training = false, momentum = 0.1, eps = 1e-5 } = options;
  const running = { runningMean, runningVariance };
  checkFloating("batchNorm", { x, weight, bias });
  checkFloating("batchNorm", running);
  checkChannels("batchNorm", x, { weight, bias, ...running });
  const precise = accumulationDType(x.dtype);
  if (runningMean.dtype !== precise) {
    throw new DTypeError(
      `[batchNorm] running statistics of x ${x.dtype} must be ${precise}; received ${runningMean.dtype}. Use astype().`,
    );
  }
  if (!(eps >= 0)) throw new OptionError(`[batchNorm] eps must be ≥ 0; received ${eps}.`);
  if (!(momentum >= 0 && momentum <= 1)) {
    throw new OptionError(`[batchNorm] momentum must be in 0..1; received ${momentum}.`);
  }
  const [B, C] = x.shape as [number, number];
  const count = C === 0 ? 0 : x.size / C;
  if (training && C > 0 && count < 2) {
    throw new ShapeError(`[batchNorm] a channel has ${count} values, which have no variance; train with more.`);
  }
  return scope(() => {
    const flat = reshape(x, [B, C, B === 0 ? 0 : count / B]);
    const inputs = [flat, weight, bias].map(widened);
    const y = batchNormOp(inputs, { training, momentum, eps, ...running });
    return inDType(reshape(y, x.shape), x.dtype);
  });
}

/**
 * Group norm: the channels of each example are cut into `groups`, each normed over its channels and all further axes, then scaled and
 * shifted channel by channel (Wu and He 2018).
 *
 * @param x - `[B, C, …]`; `C` a multiple of `groups`
 * @param weight - `[C]`
 * @param bias - `[C]`
 */
export function groupNorm(
  x: Tensor,
  groups: number,
  weight: Tensor,
  bias: Tensor,
  options: { /** Added to the variance; default 1e-5. */ eps?: number } = {},
): Tensor {
  checkFloating("groupNorm", { x, weight, bias });
  checkChannels("groupNorm", x, { weight, bias });
  const [B, C] = x.shape as [number, number];
  if (!Number.isSafeInteger(groups) || groups < 1 || C % groups !== 0) {
    throw new OptionError(`[groupNorm] groups must divide the ${C} channels; received ${groups}.`);
  }
  const perGroup = B === 0 ? 0 : x.size / B / groups;
  return scope(() => {
    const normed = layerNorm(reshape(x, [B, groups, perGroup]), undefined, undefined, options);
    const scaled = reshape(normed, [B, C, C === 0 ? 0 : perGroup / (C / groups)]).mul(perChannel(weight));
    return reshape(scaled.add(perChannel(bias)), x.shape);
  });
}
