/** Loss and accuracy over a finite set of batches. */
import { type Batch, type BatchSet, IGNORE_INDEX } from "@llmeff/data";
import {
  argMax,
  astype,
  equal,
  max,
  noGrad,
  OptionError,
  ShapeError,
  scope,
  type Tensor,
  type TypedArray,
  where,
} from "@llmeff/tensor";
import { tensorsOf } from "./gradients.js";
import type { TrainBatch } from "./options.js";
import { RatioEstimator } from "./ratio.js";

/** Values for every position of a batch. */
export type BatchFunction = (params: Record<string, Tensor>, batch: TrainBatch) => Tensor;

export interface EvaluateOptions {
  /** Stops between batches by throwing the signal's reason. */
  signal?: AbortSignal | undefined;
}

export interface LossEstimate {
  /** Mean over all valid targets, in the unit of the per-token loss. */
  loss: number;
  /** Of the loss, over sequences; NaN for fewer than two. */
  standardError: number;
  /** Valid targets. */
  tokens: number;
}

export interface AccuracyEstimate {
  /** Share of valid targets that the largest logit names; of equal logits the first counts. */
  accuracy: number;
  /** Of the accuracy, over sequences; NaN for fewer than two. */
  standardError: number;
  /** Valid targets. */
  tokens: number;
}

/**
 * Mean loss over all valid targets of a set, summed in float64.
 *
 * The standard error takes sequences as the independent units: `√(m/(m−1) Σ_i (s_i − L n_i)²) / Σ n_i` for m sequences with loss
 * sums `s_i` over `n_i` targets, `L` the loss.
 *
 * @param model - computes the loss of each position, `[B, T]`; or an object with such a `lossPerToken`. Ignored positions may hold anything
 * @throws {ShapeError} if the model returns another shape
 *
 * @example
 * const { loss, standardError } = await evaluateLoss(model, params, sequentialWindows(valid, { seqLen: 256, batchSize: 16 }));
 */
export async function evaluateLoss(
  model: BatchFunction | { lossPerToken: BatchFunction },
  params: Record<string, Tensor>,
  batches: BatchSet,
  options: EvaluateOptions = {},
): Promise<LossEstimate> {
  const estimator = new RatioEstimator();
  await addLosses([estimator], model, params, batches, options);
  return lossOf(estimator);
}

function lossOf(estimator: RatioEstimator): LossEstimate {
  const { mean, standardError, count } = estimator.estimate();
  return { loss: mean, standardError, tokens: count };
}

async function addLosses(
  estimators: readonly RatioEstimator[],
  model: BatchFunction | { lossPerToken: BatchFunction },
  params: Record<string, Tensor>,
  batches: BatchSet,
  { signal }: EvaluateOptions,
): Promise<void> {
  const lossPerToken: BatchFunction = typeof model === "function" ? model : (p, batch) => model.lossPerToken(p, batch);
  for (const batch of batches) {
    signal?.throwIfAborted();
    const losses = await valuesOf("evaluateLoss", lossPerToken, params, batch, "loss");
    for (const estimator of estimators) addSequences(estimator, batch, (position) => losses[position]!);
  }
}

/**
 * `loss · tokens / (ln 2 · bytes)`: what the targets of an evaluation cost in bits for each byte of their text, which tokenizers don't change.
 *
 * @param estimate - a loss in nats per token
 * @param bytes - of the text of the targets, in UTF-8
 *
 * @example
 * bitsPerByte({ loss: 1, tokens: 100 }, 250); // 0.577…
 */
export function bitsPerByte({ loss, tokens }: Pick<LossEstimate, "loss" | "tokens">, bytes: number): number {
  if (!(bytes > 0)) throw new OptionError(`[bitsPerByte] bytes must be above 0; received ${bytes}.`);
  return (loss * tokens) / (Math.LN2 * bytes);
}

/** The loss of several sets, such as languages or sources, alone and together. */
export interface LossBySet<Name extends string = string> {
  /** Over the targets of all sets. */
  all: LossEstimate;
  sets: Record<Name, LossEstimate>;
}

/**
 * `evaluateLoss` of several sets in one pass over each.
 *
 * @example
 * const { all, sets } = await evaluateLossBySet(model, params, { en: english, de: german });
 */
export async function evaluateLossBySet<Name extends string>(
  model: BatchFunction | { lossPerToken: BatchFunction },
  params: Record<string, Tensor>,
  sets: Readonly<Record<Name, BatchSet>>,
  options: EvaluateOptions = {},
): Promise<LossBySet<Name>> {
  const all = new RatioEstimator();
  const estimates = {} as Record<Name, LossEstimate>;
  for (const [name, batches] of Object.entries(sets) as [Name, BatchSet][]) {
    const own = new RatioEstimator();
    await addLosses([own, all], model, params, batches, options);
    estimates[name] = lossOf(own);
  }
  return { all: lossOf(all), sets: estimates };
}

/**
 * Share of the valid targets that have the largest logit.
 *
 * @param logits - computes `[B, T, V]`
 * @throws {ShapeError} if it returns another shape
 */
export async function evaluateAccuracy(
  logits: BatchFunction,
  params: Record<string, Tensor>,
  batches: BatchSet,
  options: EvaluateOptions = {},
): Promise<AccuracyEstimate> {
  const estimator = new RatioEstimator();
  for (const batch of batches) {
    options.signal?.throwIfAborted();
    const named = await valuesOf("evaluateAccuracy", logits, params, batch, "logits");
    addSequences(estimator, batch, (position) => (named[position] === batch.targets[position] ? 1 : 0));
  }
  const { mean, standardError, count } = estimator.estimate();
  return { accuracy: mean, standardError, tokens: count };
}

/** What an evaluation reads of what the model computes: of logits only which is the largest, since there are V times as many. */
const readings = {
  loss: { axes: ["B", "T"], read: toFloat },
  logits: { axes: ["B", "T", "V"], read: largest },
} as const;

/** A copy, even where the dtype stays: the model may return a tensor that is not ours to free. */
function toFloat(values: Tensor): Tensor {
  return astype(values, values.dtype === "float64" ? "float64" : "float32");
}

/** The position of the first of the largest logits; -1 if there is a NaN, so that no target is taken for right. */
function largest(logits: Tensor): Tensor {
  const highest = max(logits, { axis: -1 });
  return where(equal(highest, highest), argMax(logits, { axis: -1 }), -1); // NaN isn't equal to itself
}

/** A number for each position, on the host. */
async function valuesOf(
  name: string,
  fn: BatchFunction,
  params: Record<string, Tensor>,
  batch: Batch,
  kind: keyof typeof readings,
): Promise<TypedArray> {
  const { axes, read } = readings[kind];
  using result = noGrad(() =>
    scope(() => {
      const values = fn(params, tensorsOf(batch, params));
      const { shape } = values;
      if (shape.length !== axes.length || shape[0] !== batch.batchSize || shape[1] !== batch.seqLen) {
        const expected = [batch.batchSize, batch.seqLen, ...axes.slice(2)];
        throw new ShapeError(
          `[${name}] the model must return [${expected.join(", ")}]; received [${shape.join(", ")}].`,
        );
      }
      return read(values);
    }),
  );
  return await result.data();
}

function addSequences(
  estimator: RatioEstimator,
  { targets, batchSize, seqLen }: Batch,
  valueAt: (position: number) => number,
): void {
  for (let b = 0; b < batchSize; b++) {
    let sum = 0;
    let count = 0;
    for (let position = b * seqLen; position < (b + 1) * seqLen; position++) {
      if (targets[position] === IGNORE_INDEX) continue;
      sum += valueAt(position);
      count++;
    }
    estimator.add(sum, count);
  }
}
