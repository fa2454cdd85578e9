/** What a training run tells while it runs. Plain data, ready for a metrics file. */
import type { SkippedCheckpoint } from "./checkpoint.js";

/** A step is done: the parameters are those after it. */
export interface StepEvent {
  type: "step";
  /** From 1. */
  step: number;
  /** Mean over the valid targets of all micro-batches, before the step's update. */
  loss: number;
  /** The one that this step used. */
  learningRate: number;
  /** Global norm before clipping; only if the optimizer measures it, or the gradients of a scaled loss have overflowed. */
  gradNorm?: number;
  /** Nothing was changed because the gradients' norm was not finite. */
  skipped: boolean;
  /** What this step's loss was multiplied by for its gradients; only where losses are scaled. */
  lossScale?: number;
  /** Input positions seen since the start of the run, resumed parts included. */
  tokens: number;
  /** Of this step. */
  tokensPerSecond: number;
  /** Model FLOPs utilization, `tokensPerSecond · flopsPerToken / peakFlops`; only with the option `utilization`. */
  mfu?: number;
  /** Time spent in steps since the start of the run, resumed parts included; evaluation and checkpoints are not in it. */
  seconds: number;
}

export interface EvaluationEvent {
  type: "evaluation";
  step: number;
  metrics: Readonly<Record<string, number>>;
}

/** A checkpoint is complete and on the disk. */
export interface CheckpointEvent {
  type: "checkpoint";
  step: number;
  path: string;
}

/** The run goes on after a checkpoint's step. */
export interface ResumedEvent {
  type: "resumed";
  step: number;
  path: string;
  /** Newer checkpoints that could not be used, and why. */
  skipped: readonly SkippedCheckpoint[];
}

export type TrainEvent = StepEvent | EvaluationEvent | CheckpointEvent | ResumedEvent;
