export { type TrainingFlops, trainingFlopsPerToken } from "./accounting.js";
export { KvCache } from "./cache.js";
export type { DotAttention, LayerAttention, ResolvedConfig, SimplicialAttention, TransformerConfig } from "./config.js";
export { resolveConfig } from "./config.js";
export { type GenerateOptions, generate } from "./generate.js";
export { countParameters, type Parameters } from "./parameters.js";
export { drawToken, resolveSampling, type SamplingOptions, tokenProbabilities } from "./sampling.js";
export { type TokenBatch, Transformer } from "./transformer.js";
