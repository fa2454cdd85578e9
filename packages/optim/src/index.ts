export {
  type AdamState,
  type AdamWTransformOptions,
  adamw,
  scaleByAdam,
} from "./adamw.js";
export type { AdamWHyper } from "./adamw-options.js";
export { AdamW, type AdamWOptions } from "./fused-adamw.js";
export { Sonew, type SonewOptions } from "./fused-sonew.js";
export type { GradGuardOptions } from "./grad-guard.js";
export {
  allOf,
  anyOf,
  embeddings,
  matrices,
  not,
  type ParameterFilter,
  type ParamGroup,
  type ResolvedGroup,
  vectors,
} from "./groups.js";
export type { BeforeStep, StepHooks } from "./hooks.js";
export type {
  CommonHyper,
  CommonOptions,
  HyperSummary,
  NewGroup,
  Optimizer,
  OptimizerState,
} from "./optimizer-types.js";
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
export type { SonewGraft, SonewHyper } from "./sonew-options.js";
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
export {
  type OptimizerOfOptions,
  optimizerOf,
  type StepHyper,
  TransformOptimizer,
  type TransformOptions,
  type TransformRule,
} from "./transform-optimizer.js";
