/** Where a run stands, and how it gets into a checkpoint and out of it. */
import type { JsonObject } from "@llmeff/data";
import { copyInto, globalNorm, NonFiniteError, type Tensor } from "@llmeff/tensor";
import {
  type Checkpoint,
  type FoundCheckpoint,
  latestCheckpoint,
  listSteps,
  loadCheckpoint,
  rewriteState,
  saveCheckpoint,
} from "./checkpoint.js";
import type { BestRecord, CheckpointState, EvaluationRecord } from "./checkpoint-state.js";
import { modelTensors, requireFit } from "./fit.js";
import { disposeAll } from "./gradients.js";
import { LossScaler } from "./loss-scale.js";
import type { ResolvedTrainOptions } from "./options.js";

export interface RunState {
  /** Optimizer steps done. */
  step: number;
  tokens: number;
  seconds: number;
  skippedSteps: number;
  /** Where losses are scaled. */
  lossScaler: LossScaler | undefined;
  /** Of the data source after the last step, not after batches that a broken-off step has taken. */
  data: JsonObject;
  evaluation: EvaluationRecord | null;
  /** The best evaluation, whose checkpoint stays. */
  best: BestRecord | null;
  /** The newest checkpoint that this run wrote or came from. */
  checkpoint: { step: number; path: string } | undefined;
}

export function freshRun(options: ResolvedTrainOptions): RunState {
  return {
    step: 0,
    tokens: 0,
    seconds: 0,
    skippedSteps: 0,
    lossScaler: options.lossScale && new LossScaler(options.lossScale),
    data: options.data.state(),
    evaluation: null,
    best: null,
    checkpoint: undefined,
  };
}

/**
 * Puts parameters, optimizer and data where the newest valid checkpoint has them.
 *
 * @returns undefined if there is no checkpoint
 * @throws {FormatError} if the checkpoints are damaged or belong to another model, optimizer, data, seed or accumulation
 */
export async function resumeRun(
  options: ResolvedTrainOptions,
): Promise<{ run: RunState; found: FoundCheckpoint } | undefined> {
  const found = await latestCheckpoint(options.checkpoint!.directory);
  if (found === undefined) return undefined;
  const loaded = await loadCheckpoint(found.path, { device: "cpu" }); // from there into the tensors that are on the device already
  try {
    restore(options, loaded);
  } finally {
    disposeAll(loaded.params);
    disposeAll(loaded.optimizer.tensors);
  }
  const { step, tokens, seconds, skippedSteps, data, evaluation } = loaded.state;
  // An older state than the newest may name a best one that was removed after it, when a better came.
  const named = loaded.state.best ?? null;
  const steps = await listSteps(options.checkpoint!.directory);
  const best = named !== null && steps.includes(named.step) && isJudgedAlike(named, options) ? named : null;
  const checkpoint = { step, path: found.path };
  const lossScaler = options.lossScale && new LossScaler(options.lossScale);
  lossScaler?.restore(loaded.state.lossScale!);
  return { run: { step, tokens, seconds, skippedSteps, lossScaler, data, evaluation, best, checkpoint }, found };
}

/** Whether the best evaluation so far can be held against those to come: a value of another metric says nothing. */
function isJudgedAlike(best: BestRecord, { checkpoint }: ResolvedTrainOptions): boolean {
  const now = checkpoint?.best;
  if (now === undefined || best.metric === undefined) return true;
  return best.metric === now.metric && best.highest === (now.highest ?? false);
}

/** @throws {NonFiniteError} instead of writing parameters that can't be trained on */
export async function checkpointRun(options: ResolvedTrainOptions, run: RunState): Promise<string> {
  const { optimizer, seed, config, gradientAccumulation } = options;
  const { directory, keepLast } = options.checkpoint!;
  const params = modelTensors(options);
  if (!(await areFinite(Object.values(params)))) {
    throw new NonFiniteError(
      `[train] a parameter is not finite after step ${run.step}, so no checkpoint of it was written; ${lastCheckpoint(run)}. ` +
        "Lower the learning rate, or give the optimizer maxGradNorm, which passes over steps with such gradients.",
    );
  }
  const { step, tokens, seconds, skippedSteps, lossScaler, data, evaluation, best } = run;
  const { tensors, meta } = optimizer.stateDict();
  const state: CheckpointState = {
    step,
    tokens,
    seconds,
    seed,
    gradientAccumulation,
    skippedSteps,
    ...(lossScaler && { lossScale: lossScaler.state }),
    data,
    optimizer: meta,
    evaluation,
    best,
    config,
  };
  if (run.checkpoint?.step === step) {
    await rewriteState(run.checkpoint.path, state);
    return run.checkpoint.path;
  }
  return saveCheckpoint(directory, params, tensors, state, keepLast);
}

/** For messages of failures: what the user can go back to. */
export function lastCheckpoint({ checkpoint }: RunState): string {
  return checkpoint === undefined ? "there is no checkpoint yet" : `the last checkpoint is ${checkpoint.path}`;
}

function restore(options: ResolvedTrainOptions, checkpoint: Checkpoint): void {
  const { params, optimizer, state } = checkpoint;
  requireFit(options, checkpoint);
  options.data.restore(state.data);
  options.optimizer.loadStateDict(optimizer);
  for (const [name, tensor] of Object.entries(modelTensors(options))) copyInto(tensor, params[name]!);
}

/** Whether all numbers are; a norm is of tensors of one dtype, which model state needn't have. */
async function areFinite(tensors: readonly Tensor[]): Promise<boolean> {
  const dtypes = new Set(
    tensors.map(({ dtype }) => dtype).filter((dtype) => !["int32", "uint8", "bool"].includes(dtype)),
  );
  for (const dtype of dtypes) {
    using norm = globalNorm(tensors.filter((one) => one.dtype === dtype));
    if (!Number.isFinite(await norm.item())) return false;
  }
  return true;
}
