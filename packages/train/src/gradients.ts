/** The loss of one optimizer step and its gradients, over one or more micro-batches. */
import { type Batch, type BatchArray, IGNORE_INDEX } from "@llmeff/data";
import { add, full, type HostNumber, OptionError, scope, Tensor, tensor, valueAndGrad } from "@llmeff/tensor";
import { Collected } from "./collected.js";
import type { Objective, ObjectiveContext, TrainBatch } from "./options.js";

export interface LossAndGradients {
  loss: number;
  grads: Record<string, Tensor>;
  /** What the objective collected, summed over the micro-batches. */
  collected: Readonly<Record<string, Tensor>>;
  /** Gives the gradients and what was collected up. */
  release(): void;
}

/**
 * Loss and gradients of the micro-batches as if they were one batch: `Σ_i (n_i / n) · objective(batch_i)`, where `n_i` counts
 * the valid targets of micro-batch i and `n` those of all. It equals the large batch up to the order of summation.
 *
 * The mean of means would weigh a target in a mostly masked micro-batch more than one in a full micro-batch.
 * A micro-batch without targets is passed over; if none has any, the objective decides (cross-entropy: loss 0, no gradient).
 *
 * Each loss is read before the next micro-batch is begun, so the engine's queue stays short and the event loop free.
 */
export async function lossAndGradients(
  objective: Objective,
  params: Record<string, Tensor>,
  batches: readonly Batch[],
  { seed, step }: { seed: number; step: number },
): Promise<LossAndGradients> {
  const weights = microBatchWeights(batches);
  const collected = new Collected();
  let loss = 0;
  let grads: Record<string, Tensor> | undefined;
  try {
    for (const [microBatch, batch] of batches.entries()) {
      const weight = weights[microBatch]!;
      if (weight === 0) continue;
      const own = scope(() => {
        const stream = streamOf(step, microBatch, batches.length);
        const { collect } = collected;
        const stage = stageOf(objective, step);
        const context = { seed, step, microBatch, stream, stage, byStep: numberAt(step), collect };
        return differentiate(objective, params, tensorsOf(batch, params), weight, context);
      });
      using value = own.value;
      grads = grads === undefined ? own.grads : addAndDispose(grads, own.grads);
      loss += await value.item();
    }
  } catch (error) {
    if (grads) disposeAll(grads);
    collected.dispose();
    throw error;
  }
  const owned = grads!;
  const release = () => {
    disposeAll(owned);
    collected.dispose();
  };
  return { loss, grads: owned, collected: collected.sums, release };
}

/** Numbers the micro-batches of all steps; `step` counts from 1. */
export function streamOf(step: number, microBatch: number, microBatches: number): number {
  return (step - 1) * microBatches + microBatch;
}

/** The stage of a step; see `Objective.stageAt`. */
export function stageOf({ stageAt }: Objective, step: number): string {
  return stageAt?.(step) ?? "";
}

function numberAt(step: number): ObjectiveContext["byStep"] {
  return (numberOf) => numberOf(step);
}

/** Number of positions that carry loss. */
function countTargets(targets: Int32Array): number {
  let count = 0;
  for (const target of targets) if (target !== IGNORE_INDEX) count++;
  return count;
}

export function disposeAll(tensors: Record<string, Tensor>): void {
  for (const one of Object.values(tensors)) one.dispose();
}

/** The batch's arrays as tensors where the parameters are; they belong to the enclosing scope. */
export function tensorsOf(batch: Batch, params: Record<string, Tensor>): TrainBatch {
  const device = Object.values(params)[0]?.device;
  const named = Object.entries(arraysOf(batch)).map(([name, { data, shape }]) => [
    name,
    tensor(data, { shape, device }),
  ]);
  return batchFrom(Object.fromEntries(named));
}

/** All arrays of a batch by name; `batchFrom` is the way back. */
export function arraysOf({ tokens, targets, batchSize, seqLen, extras = {} }: Batch): Record<string, BatchArray> {
  const shape = [batchSize, seqLen];
  const named = Object.entries(extras).map(([name, array]) => [`extras.${name}`, array]);
  return { tokens: { data: tokens, shape }, targets: { data: targets, shape }, ...Object.fromEntries(named) };
}

export function batchFrom({ tokens, targets, ...rest }: Readonly<Record<string, Tensor>>): TrainBatch {
  const extras = Object.entries(rest).map(([name, array]) => [name.slice("extras.".length), array]);
  return { tokens: tokens!, targets: targets!, extras: Object.fromEntries(extras) };
}

/** What the loss of each micro-batch counts: its part of the valid targets. */
export function microBatchWeights(batches: readonly Batch[]): number[] {
  const counts = batches.map(({ targets }) => countTargets(targets));
  const total = counts.reduce((a, b) => a + b, 0);
  return total === 0 ? counts.map(() => 1 / counts.length) : counts.map((count) => count / total);
}

/** The weighted loss of a micro-batch and its gradients. */
export function differentiate(
  objective: Objective,
  params: Record<string, Tensor>,
  inputs: TrainBatch,
  weight: HostNumber,
  context: ObjectiveContext,
): { value: Tensor; grads: Record<string, Tensor> } {
  const { value, grads } = valueAndGrad((tracked) => {
    const loss: unknown = objective(tracked, inputs, context);
    if (!(loss instanceof Tensor)) {
      throw new OptionError(
        `[train] objective must return a Tensor with the mean loss; received ${loss instanceof Promise ? "a Promise" : typeof loss}.`,
      );
    }
    return weight === 1 ? loss : loss.mul(full([], weight, { dtype: loss.dtype, device: loss.device }));
  }, params);
  return { value, grads };
}

export function addAndDispose(a: Record<string, Tensor>, b: Record<string, Tensor>): Record<string, Tensor> {
  try {
    return scope(() => Object.fromEntries(Object.entries(a).map(([name, grad]) => [name, add(grad, b[name]!)])));
  } finally {
    disposeAll(a);
    disposeAll(b);
  }
}
