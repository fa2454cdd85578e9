export { AgreementError, requireAgreement, type TokenIdentity, tokenIdentity } from "./agreement.js";
export type { CacheHeader } from "./cache-format.js";
export { type CachedBatchesOptions, withTeacherCache } from "./cached-batches.js";
export { type CodistillOptions, codistill, type Peer, type PeerEvent } from "./codistill.js";
export { describeCost, type SaltCost, type SaltRun, saltCost } from "./cost.js";
export { cacheExtras, type DistillObjective, type DistillOptions, distill } from "./distill.js";
export {
  type DistillationLossOptions,
  type DistillationParts,
  distillationLoss,
  distillationParts,
  linearDistillationParts,
} from "./distillation-loss.js";
export type { Divergence } from "./divergences.js";
export {
  type ComparedTokens,
  compareTokens,
  type EasinessBucket,
  type EasinessReport,
  easinessReport,
} from "./easiness.js";
export { EmaTeacher } from "./ema-teacher.js";
export { type FeatureLoss, type FeaturePair, featureLoss, featureProjections, studentParameters } from "./features.js";
export type { HiddenStateOptions } from "./hidden-state-loss.js";
export { type LabelOptions, labelCorpus, type TokenStream } from "./label-corpus.js";
export { decodeLogProb, encodeLogProb } from "./log-prob-codes.js";
export type { DistillMetrics } from "./metrics.js";
export { type Parameters, type Teacher, type TokenModel, type TrainedStates, tokenModel } from "./model.js";
export {
  type ContinuationOptions,
  type WrittenBatches,
  type WrittenBatchesOptions,
  writeContinuations,
  writtenBatches,
} from "./on-policy.js";
export { type OmegaSchedule, omegaAt } from "./schedule.js";
export {
  type Hardness,
  hardnessOf,
  type ScoreOptions,
  scoreSequences,
  type TokenStatistics,
  tokenStatistics,
} from "./scoring.js";
export { type SparseMode, type SparseTarget, sparseModes } from "./sparse.js";
export { type SparseTargetOptions, sparseTargets } from "./sparse-targets.js";
export type { DistillTarget, TeacherScores } from "./targets.js";
export {
  type CachedPredictions,
  type ExpectedCache,
  openTeacherCache,
  TeacherCache,
  type TeacherCacheOptions,
  TeacherCacheWriter,
} from "./teacher-cache.js";
