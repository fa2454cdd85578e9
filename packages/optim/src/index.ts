export { type AccumulateState, accumulate } from "./accumulate.js";
export {
  type AdamState,
  type AdamWTransformOptions,
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
export { type EmaState, ema } from "./ema.js";
export { AdamW, type AdamWOptions } from "./fused-adamw.js";
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
export type { RidgeMode } from "./inverse-root.js";
export { type LookaheadState, lookahead } from "./lookahead.js";
export { Muon, type MuonOptions, type MuonState, type MuonTransformOptions, muon, scaleByMuon } from "./muon.js";
export type {
  MuonDirectionHyper,
  MuonHyper,
  MuonMethod,
  MuonOptimizerHyper,
  MuonProductDType,
  MuonScale,
} from "./muon-options.js";
export { type NewtonSchulzOptions, newtonSchulz } from "./newton-schulz.js";
export {
  OnlineConvex,
  type OnlineConvexAlgorithm,
  type OnlineConvexDirectionHyper,
  type OnlineConvexHyper,
  type OnlineConvexOptions,
  type OnlineConvexState,
  onlineConvex,
} from "./online-convex.js";
export type {
  CommonHyper,
  CommonOptions,
  HyperSummary,
  NewGroup,
  Optimizer,
  OptimizerState,
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
  PsgdKron,
  type PsgdKronOptions,
  type PsgdKronState,
  type PsgdKronTransformOptions,
  psgdKron,
  scaleByPsgdKron,
} from "./psgd-kron.js";
export type { PsgdKronDirectionHyper, PsgdKronHyper } from "./psgd-kron-options.js";
export {
  RfdSon,
  type RfdSonDirectionHyper,
  type RfdSonHyper,
  type RfdSonOptions,
  type RfdSonState,
  type RfdSonTransformOptions,
  rfdSon,
  scaleByRfdSon,
} from "./rfd-son.js";
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
export { Shampoo, type ShampooOptions, type ShampooTransformOptions, scaleByShampoo, shampoo } from "./shampoo.js";
export type { RootMethod, ShampooDirectionHyper, ShampooHyper } from "./shampoo-options.js";
export { Sketchy, type SketchyOptions, type SketchyTransformOptions, scaleBySketchy, sketchy } from "./sketchy.js";
export type { SketchyDirectionHyper, SketchyHyper } from "./sketchy-options.js";
export { Soap, type SoapOptions, type SoapState, type SoapTransformOptions, scaleBySoap, soap } from "./soap.js";
export type { SoapDirectionHyper, SoapHyper } from "./soap-options.js";
export { type SonewState, type SonewTransformOptions, scaleBySonew, sonew } from "./sonew.js";
export type { SonewGraft, SonewHyper } from "./sonew-options.js";
export type { FloatDType, Parameter } from "./storage.js";
export type { ShampooGraft, TearfreeHyper } from "./tearfree-options.js";
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
