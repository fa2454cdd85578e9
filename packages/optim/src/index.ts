export {
  type AdamState,
  type AdamWTransformOptions,
  adamw,
  scaleByAdam,
} from "./adamw.js";
export type { AdamWHyper } from "./adamw-options.js";
export { AdamW, type AdamWOptions } from "./fused-adamw.js";
export { Sonew, type SonewOptions } from "./fused-sonew.js";
export { type ParameterFilter, type ParamGroup, type ResolvedGroup, vectors } from "./groups.js";
export type { CommonOptions, HyperSummary, Optimizer, OptimizerState } from "./optimizer-types.js";
export {
  constant,
  cosine,
  type DecayOptions,
  inverseSqrt,
  join,
  linear,
  type ScalarOrSchedule,
  type Schedule,
  type WsdOptions,
  warmup,
  wsd,
} from "./schedules.js";
export { type SonewState, type SonewTransformOptions, scaleBySonew, sonew } from "./sonew.js";
export type { SonewGraft, SonewHyper, StateDtype } from "./sonew-options.js";
export type { FloatDType, Parameter } from "./storage.js";
export {
  addDecayedWeights,
  applyUpdates,
  chain,
  clip,
  clipByGlobalNorm,
  type GradientTransformation,
  identity,
  masked,
  scale,
  scaleByLearningRate,
  type TransformState,
  type TreeMask,
  trace,
} from "./transform.js";
