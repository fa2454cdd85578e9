export { kvCacheBytes, type TrainingFlops, trainingFlopsPerToken } from "./accounting.js";
export type { DotAttention, LayerAttention, SimplicialAttention } from "./attention-config.js";
export { KvCache, type KvCacheOptions } from "./cache.js";
export type { CachedTokens, NextTokens, Remembered } from "./cached-tokens.js";
export type { ResolvedConfig, TransformerConfig } from "./config.js";
export { resolveConfig } from "./config.js";
export type { MixtureOfExperts } from "./experts-config.js";
export type { AttentionMasks, ForeignEmbeds, ForwardOptions } from "./forward-options.js";
export { BatchGenerator, type BatchOptions, type PromptCounts } from "./generation/batch-generator.js";
export { type Beam, type BeamSearchOptions, beamSearch } from "./generation/beam-search.js";
export { generate, generateTokens } from "./generation/generate.js";
export type { GeneratedToken, GenerateOptions, SequenceOptions, TokenLogProb } from "./generation/options.js";
export {
  drawToken,
  resolveSampling,
  type SamplingOptions,
  tokenProbabilities,
} from "./generation/sampling.js";
export { readLogits } from "./generation/scorer.js";
export { checkDrafted, type DraftCounts, type DraftModel } from "./generation/speculation.js";
export { CheckpointError, type Misshapen } from "./hugging-face/checkpoint-error.js";
export type { JsonObject } from "./hugging-face/json-fields.js";
export { type HuggingFaceModel, type LoadHuggingFaceOptions, loadHuggingFace } from "./hugging-face/load.js";
export type { ConfigForm } from "./hugging-face/rope-fields.js";
export { type SaveHuggingFaceOptions, saveHuggingFace } from "./hugging-face/save.js";
export type { RouterReport } from "./layers/experts.js";
export type { ExpertWeights } from "./layers/feed-forward.js";
export { type RecomputeChoice, recomputeChoices } from "./layers/recompute.js";
export { type Llama2cModel, loadLlama2c, saveLlama2c } from "./llama2c.js";
export { nextRouterBias, type RouterBalance, routerBalance } from "./moe/balance.js";
export { expertCapacity } from "./moe/dispatch.js";
export {
  type ExpertChoiceResult,
  expertChoice,
  type MixtureOptions,
  type MixtureResult,
  type MixtureWeights,
  mixtureOfExperts,
} from "./moe/mixture.js";
export { type Routing, type RoutingOptions, routerZLoss, routeTokens } from "./moe/routing.js";
export { countActiveParameters, countParameters, type Parameters } from "./parameters.js";
export {
  type HiddenStates,
  type LossOptions,
  type TokenBatch,
  Transformer,
  type TransformerLossParts,
} from "./transformer.js";
