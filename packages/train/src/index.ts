export { type AveragedWeights, averagedWeights, modelStates, splitAverages } from "./averaged-weights.js";
export {
  bestCheckpoint,
  type Checkpoint,
  type FoundCheckpoint,
  latestCheckpoint,
  loadCheckpoint,
  type SkippedCheckpoint,
} from "./checkpoint.js";
export type { BestRecord, CheckpointState, EvaluationRecord } from "./checkpoint-state.js";
export {
  type AccuracyEstimate,
  bitsPerByte,
  type EvaluateOptions,
  evaluateAccuracy,
  evaluateLoss,
  evaluateLossBySet,
  type LossBySet,
  type LossEstimate,
} from "./evaluate.js";
export type { CheckpointEvent, EvaluationEvent, ResumedEvent, StepEvent, TrainEvent } from "./events.js";
export type { LossScaleOptions, LossScaleState } from "./loss-scale.js";
export type {
  CheckpointOptions,
  EvaluateContext,
  ModelState,
  Objective,
  ObjectiveContext,
  TrainBatch,
  TrainOptions,
} from "./options.js";
export { train } from "./train.js";
