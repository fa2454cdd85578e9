export { type AccumulateState, accumulate } from "./accumulate.js";
export {
  Adafactor,
  type AdafactorHyper,
  type AdafactorOptions,
  adafactor,
  type FactoredHyper,
  type FactoredState,
  scaleByFactoredRms,
  scaleByParamRms,
} from "./adafactor.js";
export { Adagrad, type AdagradHyper, type AdagradOptions, adagrad, scaleByAdagrad } from "./adagrad.js";
export {
  type AdamState,
  type AdamWTransformOptions,
  adam,
  adamw,
  scaleByAdam,
} from "./adamw.js";
export type { AdamWHyper } from "./adamw-options.js";
export {
  type AlgoperfCosineOptions,
  type AlgoperfLinearOptions,
  algoperfCosine,
  algoperfLinear,
} from "./algoperf-schedules.js";
export { type ApplyIfFiniteState, applyIfFinite } from "./apply-if-finite.js";
export { adaptiveGradClip, clipByBlockRms } from "./clip-blocks.js";
export {
  type CosineRestartsOptions,
  cosineRestarts,
  type OneCycleOptions,
  oneCycle,
} from "./cyclic-schedules.js";
export type { DecayHyper, DecayMask } from "./decay.js";
export { type EmaState, ema } from "./ema.js";
export { type CostEstimate, type CostOptions, estimateCost } from "./estimate-cost.js";
export { Adam, AdamW, type AdamWOptions } from "./fused-adamw.js";
export { Sonew, type SonewOptions } from "./fused-sonew.js";
export type { GradGuardOptions } from "./grad-guard.js";
export { type GraftState, graft } from "./graft.js";
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
export { type InjectedState, injectHyperparams } from "./inject-hyperparams.js";
export { Lamb, type LambHyper, type LambOptions, lamb, scaleByTrustRatio } from "./lamb.js";
export { Lion, type LionHyper, type LionOptions, lion, scaleByLion } from "./lion.js";
export { type LookaheadState, lookahead } from "./lookahead.js";
export * from "./matrix-rules.js";
export {
  type NAdamHyper,
  type NAdamVariant,
  NAdamW,
  type NAdamWHyper,
  type NAdamWOptions,
  nadamw,
  scaleByNAdam,
} from "./nadamw.js";
export type { BaseOptimizer } from "./optimizer.js";
export type {
  CommonHyper,
  CommonOptions,
  HyperSummary,
  NewGroup,
  Optimizer,
  OptimizerState,
  StepOptions,
} from "./optimizer-types.js";
export { ParameterEma, type ParameterEmaOptions, type ParameterEmaState } from "./parameter-ema.js";
export { type PartitionState, partition } from "./partition.js";
export {
  type ExponentialOptions,
  exponential,
  type PolynomialOptions,
  piecewiseConstant,
  piecewiseLinear,
  polynomial,
} from "./piecewise-schedules.js";
export {
  RMSprop,
  type RMSpropHyper,
  type RMSpropOptions,
  type RmsHyper,
  type RmsState,
  rmsprop,
  scaleByRms,
} from "./rmsprop.js";
export {
  type MatricesToOptions,
  matricesTo,
  type Route,
  RoutedOptimizer,
  type RouteOptions,
  route,
} from "./route.js";
export type { RuleCostOptions, RuleName } from "./rule-costs.js";
export { SAM, type SAMOptions, type Steppable } from "./sam.js";
export {
  ScheduleFreeAdamW,
  type ScheduleFreeAdamWHyper,
  type ScheduleFreeAdamWOptions,
  type ScheduleFreeState,
  scheduleFreeAdamw,
  scheduleFreeEvalParams,
} from "./schedule-free.js";
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
export { type MomentumHyper, SGD, type SGDHyper, type SGDOptions, scaleByMomentum, sgd } from "./sgd.js";
export { SM3, type SM3Hyper, type SM3Options, type SM3State, type Sm3Scaling, scaleBySM3, sm3 } from "./sm3.js";
export { type SonewState, type SonewTransformOptions, scaleBySonew, sonew } from "./sonew.js";
export type { SonewGraft, SonewHyper, StateDtype } from "./sonew-options.js";
export type { FloatDType, Parameter } from "./storage.js";
export {
  addDecayedWeights,
  applyUpdates,
  centralize,
  chain,
  clip,
  clipByGlobalNorm,
  type GradientTransformation,
  identity,
  masked,
  scale,
  scaleByLearningRate,
  scaleBySchedule,
  setToZero,
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
