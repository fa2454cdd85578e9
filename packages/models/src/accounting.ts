import type { ResolvedConfig } from "./config.js";
import { countActiveParameters } from "./parameters.js";

/** Σ over the queries of a causal sequence of the number of keys in a window. */
function causalKeys(seqLen: number, window: number | undefined): number {
  const w = Math.min(window ?? seqLen, seqLen);
  return (w * (w + 1)) / 2 + (seqLen - w) * w;
}

/** Σ over the queries of the number of pairs, `Σ_i min(i+1, w1) · min(i+1, w2)` (simplicial-attention.md §6.1). */
export function simplicialPairs(seqLen: number, w1: number | undefined, w2: number | undefined): number {
  const short = Math.min(w1 ?? seqLen, w2 ?? seqLen, seqLen);
  const long = Math.min(Math.max(w1 ?? seqLen, w2 ?? seqLen), seqLen);
  const squares = (short * (short + 1) * (2 * short + 1)) / 6;
  const growing = (short * (long * (long + 1) - short * (short + 1))) / 2;
  return squares + growing + (seqLen - long) * short * long;
}

export interface TrainingFlops {
  /** `6 · N`: two for each weight forward, four backward; N without tables that are only looked up in, and of experts those that a token meets. */
  matmul: number;
  /** Attention, over the pairs that the masks allow. */
  attention: number;
  total: number;
}

/**
 * Floating-point operations of one training step (forward and backward), per token of sequences of `seqLen`.
 *
 * Attention counts what the causal mask and the windows allow: dot-product 12·D a query and key (4 forward, 8 backward by the usual
 * count), 2-simplicial 14·D a query and pair (4 forward, 10 backward: simplicial-attention.md §6.2 "tc"). The usual formula
 * `12·L·H·D·T` counts the whole square instead; `causal: false` does so, for comparison with papers.
 */
export function trainingFlopsPerToken(
  config: ResolvedConfig,
  seqLen: number,
  options: { causal?: boolean } = {},
): TrainingFlops {
  const { causal = true } = options;
  const { numHeads, headDim, vocabSize, dModel, maxSeqLen, positions, tieEmbeddings } = config;
  const lookups = (tieEmbeddings ? 0 : vocabSize) + (positions === "learned" ? maxSeqLen : 0);
  const weights = countActiveParameters(config) - lookups * dModel;
  let attention = 0;
  for (const layer of config.layers) {
    if (layer.kind === "dot") {
      const keys = causal ? causalKeys(seqLen, layer.window) / seqLen : Math.min(layer.window ?? seqLen, seqLen);
      attention += 12 * numHeads * headDim * keys;
    } else {
      const whole = Math.min(layer.w1 ?? seqLen, seqLen) * Math.min(layer.w2 ?? seqLen, seqLen);
      const pairs = causal ? simplicialPairs(seqLen, layer.w1, layer.w2) / seqLen : whole;
      attention += 14 * numHeads * headDim * pairs;
    }
  }
  const matmul = 6 * weights;
  return { matmul, attention, total: matmul + attention };
}

/** Bytes of a cache of all keys and values of a sequence, `2 · G · D · T · B` values a layer; windows hold fewer, 2-simplicial layers twice as many. */
export function kvCacheBytes(
  config: ResolvedConfig,
  seqLen: number,
  { batchSize = 1, bytesPerValue = 2 }: { batchSize?: number; bytesPerValue?: number } = {},
): number {
  const held = (window: number | undefined) => Math.min(window ?? seqLen, seqLen);
  const rows = config.layers.reduce((n, layer) => {
    const positions = layer.kind === "dot" ? held(layer.window) : held(layer.w1) + held(layer.w2);
    return n + 2 * positions * layer.numKvHeads;
  }, 0);
  return rows * config.headDim * batchSize * bytesPerValue;
}
