/** The loss of one optimizer step and its gradients, over one or more micro-batches. */
import { type Batch, type BatchArray, IGNORE_INDEX } from "@llmeff/data";
import {
  accumulationDType,
  add,
  astype,
  full,
  globalNorm,
  type HostNumber,
  mul,
  OptionError,
  scope,
  Tensor,
  tensor,
  valueAndGrad,
} from "@llmeff/tensor";
import { Collected } from "./collected.js";
import type { Objective, ObjectiveContext, TrainBatch } from "./options.js";

export interface LossAndGradients {
  loss: number;
  grads: Record<string, Tensor>;
  /** Of losses that were scaled: the global norm of the gradients, which isn't finite if something has overflowed. */
  norm?: number;
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
 * Sums of several gradients, and gradients of losses that were scaled, are in float32 at least: 16 bits would lose what a micro-batch adds to many.
 *
 * Each loss is read before the next micro-batch is begun, so the engine's queue stays short and the event loop free.
 */
export async function lossAndGradients(
  objective: Objective,
  params: Record<string, Tensor>,
  batches: readonly Batch[],
  { seed, step, lossScale }: { seed: number; step: number; lossScale: number | undefined },
): Promise<LossAndGradients> {
  const weights = microBatchWeights(batches);
  const collected = new Collected();
  const scale = lossScale === undefined ? undefined : { up: lossScale, down: 1 / lossScale };
  let loss = 0;
  let grads: Record<string, Tensor> | undefined;
  let norm: number | undefined;
  try {
    for (const [microBatch, batch] of batches.entries()) {
      const weight = weights[microBatch]!;
      if (weight === 0) continue;
      const own = scope(() => {
        const stream = streamOf(step, microBatch, batches.length);
        const { collect } = collected;
        const stage = stageOf(objective, step);
        const context = { seed, step, microBatch, stream, stage, byStep: numberAt(step), collect };
        return differentiate(objective, params, tensorsOf(batch, params), weight, context, scale);
      });
      using value = own.value;
      grads = grads === undefined ? own.grads : addAndDispose(grads, own.grads);
      loss += await value.item();
    }
    if (scale !== undefined) {
      using measured = globalNorm(Object.values(grads!));
      norm = await measured.item();
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
  return { loss, grads: owned, ...(norm === undefined ? {} : { norm }), collected: collected.sums, release };
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

/** What a loss is multiplied by, and its gradients afterwards, which undoes it. */
export interface Scale {
  up: HostNumber;
  down: HostNumber;
}

/** The weighted loss of a micro-batch and its gradients: those of the loss itself, in float32 at least if it was scaled. */
export function differentiate(
  objective: Objective,
  params: Record<string, Tensor>,
  inputs: TrainBatch,
  weight: HostNumber,
  context: ObjectiveContext,
  scale: Scale | undefined,
): { value: Tensor; grads: Record<string, Tensor> } {
  const weighted = (tracked: Record<string, Tensor>): Tensor => {
    const loss: unknown = objective(tracked, inputs, context);
    if (!(loss instanceof Tensor)) {
      throw new OptionError(
        `[train] objective must return a Tensor with the mean loss; received ${loss instanceof Promise ? "a Promise" : typeof loss}.`,
      );
    }
    return weight === 1 ? loss : times(loss, weight);
  };
  if (scale === undefined) {
    const { value, grads } = valueAndGrad(weighted, params);
    return { value, grads };
  }
  const { value, grads, aux } = valueAndGrad((tracked) => {
    const loss = weighted(tracked);
    return { loss: times(wide(loss), scale.up), aux: loss };
  }, params);
  value.dispose();
  return { value: aux, grads: unscaled(grads, scale.down) };
}

function times(x: Tensor, factor: HostNumber): Tensor {
  return mul(x, full([], factor, { dtype: x.dtype, device: x.device }));
}

function wide(x: Tensor): Tensor {
  const dtype = accumulationDType(x.dtype);
  return x.dtype === dtype ? x : astype(x, dtype);
}

/** The gradients times a factor, in float32 at least, in their place. */
function unscaled(grads: Record<string, Tensor>, factor: HostNumber): Record<string, Tensor> {
  try {
    return scope(() =>
      Object.fromEntries(
        Object.entries(grads).map(([name, grad]) => {
          const result = scope(() => times(wide(grad), factor));
          grad.dispose(); // both at once would take half as much memory again
          return [name, result];
        }),
      ),
    );
  } finally {
    disposeAll(grads);
  }
}

export function addAndDispose(a: Record<string, Tensor>, b: Record<string, Tensor>): Record<string, Tensor> {
  const sum = (x: Tensor, y: Tensor) => scope(() => add(wide(x), wide(y)));
  try {
    return scope(() => Object.fromEntries(Object.entries(a).map(([name, grad]) => [name, sum(grad, b[name]!)])));
  } finally {
    disposeAll(a);
    disposeAll(b);
  }
}
