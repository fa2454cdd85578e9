import { OptionError, type RopeScaling, ropeFrequencies } from "@llmeff/tensor";
import { checkLayer, type LayerAttention, type ResolvedLayer, resolveLayer } from "./attention-config.js";
import {
  checkChoice,
  checkFlag,
  checkKeys,
  checkNonNegative,
  checkObject,
  checkPositive,
  checkPositiveNumber,
  refuse,
} from "./config-checks.js";
import { type MixtureOfExperts, type ResolvedExperts, resolveExperts } from "./experts-config.js";

const norms = ["rms", "layer"] as const;
const feedForwards = ["swiglu", "geglu", "gelu", "geluErf", "relu2"] as const;
const blocks = ["pre", "sandwich", "parallel", "post"] as const;
const attentionBiases = ["none", "qkv", "all"] as const;

/** A decoder-only Transformer; by default RMSNorm, rotary positions, grouped queries, SwiGLU, pre-norm residual blocks, no biases. */
export interface TransformerConfig {
  vocabSize: number;
  dModel: number;
  numLayers: number;
  numHeads: number;
  /** Key/value heads, shared by groups of query heads; default `numHeads`. */
  numKvHeads?: number;
  /** Channels of a head; default `dModel / numHeads`. */
  headDim?: number;
  /** Width of the feed-forward layers; default 8/3 of `dModel`, rounded up to a multiple of 8. */
  ffnDim?: number;
  /** Longest sequence that positions are prepared for. */
  maxSeqLen: number;
  /** Attention by layer: a pattern that is repeated, e.g. three of `dot` and one `simplicial`; default `dot` everywhere. */
  attention?: readonly LayerAttention[];
  /** RMS norm of queries and keys, per head; default: in simplicial layers only, whose logits are cubic in their inputs. */
  qkNorm?: boolean;
  /** Multiplies the logits of attention in dot layers; default `1 / √headDim`, under `mup` `1 / headDim`. */
  attentionScale?: number;
  /** Logits of attention become `softcap · tanh(logits / softcap)` in dot layers; default 0, off. */
  attentionSoftcap?: number;
  /** Biases of the attention's projections: of q, k and v (Qwen2), or of these and the output (GPT-2); default none. */
  attentionBias?: (typeof attentionBiases)[number];
  /** The softcap of the output logits; default 0, off. */
  finalSoftcap?: number;
  /**
   * `swiglu` (default) and `geglu`: `(act(x Wgᵀ) ∘ x Wuᵀ) Wdᵀ`; `gelu` (its tanh form), `geluErf` and `relu2` (the square of relu):
   * `act(x Wuᵀ) Wdᵀ`.
   */
  feedForward?: (typeof feedForwards)[number];
  /** Biases of the feed-forward layers' projections; default false. */
  feedForwardBias?: boolean;
  /** A mixture of experts in place of the feed-forward layers; default none. */
  experts?: MixtureOfExperts;
  /** `rms` (default), or `layer`, which subtracts the mean and has a bias (GPT-2). */
  norm?: (typeof norms)[number];
  /** RMS norms multiply by `1 + weight` with weights that begin at 0 (Gemma); default false. */
  normPlusOne?: boolean;
  /** Added to the mean square in norms; default 1e-5. */
  normEps?: number;
  /**
   * Where a block has its norms: `pre` (default) `x += f(norm x)`; `sandwich` `x += norm(f(norm x))` (Gemma 2); `post` `x = norm(x + f(x))`, which
   * needs no last norm; `parallel` `x += attention(norm x) + feedForward(norm x)` (PaLM).
   */
  block?: (typeof blocks)[number];
  /** `rotary` turns queries and keys (default); `learned` adds a trained vector for each of the maxSeqLen positions, as in GPT-2. */
  positions?: "rotary" | "learned";
  /** Base of the rotary wavelengths; default 10 000. */
  ropeBase?: number;
  /** Changes the wavelengths for sequences longer than those trained on; default none. */
  ropeScaling?: RopeScaling;
  /** Channels of a head that are turned, the first ones; default `headDim`. */
  rotaryDim?: number;
  /** Pairs of channels (2i, 2i+1) instead of (i, i + rotaryDim/2); default false. */
  ropeInterleaved?: boolean;
  /** The output layer uses the embedding table; default false. */
  tieEmbeddings?: boolean;
  /** Multiplies the embeddings of tokens, `√dModel` in Gemma; default 1. Rounded to the dtype of the table. */
  embeddingScale?: number;
  /** Standard deviation of the initial weights; default 0.02. Matrices that write to the residual stream get it over √(2·numLayers). */
  initStd?: number;
  /** Matrices that write to the residual stream begin at 0: every block begins as the identity; default false. */
  zeroInitResidual?: boolean;
  /**
   * Maximal update parametrisation (arXiv:2203.03466) for Adam, with `m = dModel / baseWidth`: hidden matrices begin with variance `1 / fanIn`
   * and learn at `1/m` of the rate (`Transformer.learningRateScales`), output logits are multiplied by `1/m`; default off.
   */
  mup?: { baseWidth: number };
}

type Optional = "ropeScaling" | "experts" | "mup";

/** A configuration with every default filled in, and the attention of each layer. */
export type ResolvedConfig = Required<Omit<TransformerConfig, "attention" | "qkNorm" | Optional>> &
  Pick<TransformerConfig, "ropeScaling" | "mup"> & {
    layers: readonly ResolvedLayer[];
    experts?: ResolvedExperts;
  };

const configKeys = Object.keys({
  vocabSize: true,
  dModel: true,
  numLayers: true,
  numHeads: true,
  numKvHeads: true,
  headDim: true,
  ffnDim: true,
  maxSeqLen: true,
  attention: true,
  qkNorm: true,
  attentionScale: true,
  attentionSoftcap: true,
  attentionBias: true,
  finalSoftcap: true,
  feedForward: true,
  feedForwardBias: true,
  experts: true,
  norm: true,
  normPlusOne: true,
  normEps: true,
  block: true,
  positions: true,
  ropeBase: true,
  ropeScaling: true,
  rotaryDim: true,
  ropeInterleaved: true,
  tieEmbeddings: true,
  embeddingScale: true,
  initStd: true,
  zeroInitResidual: true,
  mup: true,
} satisfies Record<keyof TransformerConfig, true>);

function checkHeads(headDim: unknown, positions: string, { dModel, numHeads }: TransformerConfig): void {
  const rotary = positions === "rotary";
  if (Number.isInteger(headDim) && (headDim as number) > 0 && !(rotary && (headDim as number) % 2 !== 0)) return;
  throw new OptionError(
    `[TransformerConfig] headDim must be a positive ${rotary ? "even " : ""}integer${rotary ? " (rotary positions turn pairs)" : ""}; received ${headDim}. Set it, or make dModel (${dModel}) a multiple of ${rotary ? "2 · " : ""}numHeads (${numHeads}).`,
  );
}

/** The fields of rotary positions, which other positions have no use for. */
function checkRotary(config: TransformerConfig, headDim: number, positions: "rotary" | "learned"): void {
  const { ropeBase = 10_000, ropeScaling, rotaryDim = headDim, ropeInterleaved = false } = config;
  checkPositiveNumber("ropeBase", ropeBase);
  checkFlag("ropeInterleaved", ropeInterleaved);
  if (
    !Number.isSafeInteger(rotaryDim) ||
    rotaryDim < 0 ||
    rotaryDim > headDim ||
    (rotaryDim % 2 !== 0 && positions === "rotary")
  )
    refuse("rotaryDim", `an even integer of at most headDim (${headDim})`, rotaryDim);
  if (ropeScaling === undefined) return;
  checkObject("ropeScaling", ropeScaling);
  if (positions === "learned") refuse("ropeScaling", 'left out with positions: "learned"', ropeScaling);
  if (rotaryDim > 0) ropeFrequencies(rotaryDim, { base: ropeBase, scaling: ropeScaling });
}

function checkMup(mup: unknown): void {
  checkObject("mup", mup);
  checkKeys("mup", mup as object, ["baseWidth"]);
  checkPositive("mup.baseWidth", (mup as { baseWidth: unknown }).baseWidth);
}

/**
 * Fills in the defaults of a configuration.
 *
 * @throws {OptionError} naming the field that is missing or doesn't fit
 */
export function resolveConfig(config: TransformerConfig): ResolvedConfig {
  checkObject("the configuration", config);
  checkKeys("the configuration", config, configKeys);
  const { numKvHeads = config.numHeads, attention = [{ kind: "dot" }], qkNorm, mup, ropeScaling } = config;
  const {
    headDim = config.dModel / config.numHeads,
    ffnDim = Math.ceil((config.dModel * 8) / 3 / 8) * 8,
    attentionSoftcap = 0,
    attentionBias = "none",
    finalSoftcap = 0,
    feedForward = "swiglu",
    feedForwardBias = false,
    norm = "rms",
    normPlusOne = false,
    normEps = 1e-5,
    block = "pre",
    positions = "rotary",
    ropeBase = 10_000,
    rotaryDim = headDim,
    ropeInterleaved = false,
    tieEmbeddings = false,
    embeddingScale = 1,
    initStd = 0.02,
    zeroInitResidual = false,
  } = config;
  const { vocabSize, dModel, numLayers, numHeads, maxSeqLen } = config;
  const counts = { vocabSize, dModel, numLayers, numHeads, numKvHeads, maxSeqLen, ffnDim };
  for (const [name, value] of Object.entries(counts)) checkPositive(name, value);
  checkChoice("positions", positions, ["rotary", "learned"]);
  checkHeads(headDim, positions, config);
  if (numHeads % numKvHeads !== 0) {
    throw new OptionError(
      `[TransformerConfig] numHeads must be a multiple of numKvHeads; received ${numHeads} and ${numKvHeads}.`,
    );
  }
  for (const [name, value] of Object.entries({ attentionSoftcap, finalSoftcap, normEps, initStd }))
    checkNonNegative(name, value);
  for (const [name, value] of Object.entries({ tieEmbeddings, feedForwardBias, normPlusOne, zeroInitResidual }))
    checkFlag(name, value);
  if (qkNorm !== undefined) checkFlag("qkNorm", qkNorm);
  checkChoice("norm", norm, norms);
  checkChoice("feedForward", feedForward, feedForwards);
  checkChoice("block", block, blocks);
  checkChoice("attentionBias", attentionBias, attentionBiases);
  if (norm === "layer" && normPlusOne) refuse("normPlusOne", 'false with norm: "layer"', normPlusOne);
  checkPositiveNumber("embeddingScale", embeddingScale);
  checkRotary(config, headDim, positions);
  if (mup !== undefined) checkMup(mup);
  const { attentionScale = mup === undefined ? 1 / Math.sqrt(headDim) : 1 / headDim } = config;
  checkPositiveNumber("attentionScale", attentionScale);
  const experts = config.experts === undefined ? undefined : resolveExperts(config.experts, ffnDim);
  if (experts !== undefined && feedForwardBias) refuse("feedForwardBias", "false with experts", feedForwardBias);
  if (!Array.isArray(attention) || attention.length === 0) {
    throw new OptionError("[TransformerConfig] attention must be a pattern of at least one layer; received none.");
  }
  for (const [i, layer] of attention.entries()) checkLayer(layer, `attention[${i}]`, numHeads, positions);
  const layers = Array.from({ length: numLayers }, (_, i) =>
    resolveLayer(attention[i % attention.length] as LayerAttention, { numKvHeads, qkNorm, positions }),
  );
  return {
    vocabSize,
    dModel,
    numLayers,
    numHeads,
    numKvHeads,
    headDim,
    ffnDim,
    maxSeqLen,
    attentionScale,
    attentionSoftcap,
    attentionBias,
    finalSoftcap,
    feedForward,
    feedForwardBias,
    norm,
    normPlusOne,
    normEps,
    block,
    positions,
    ropeBase,
    rotaryDim,
    ropeInterleaved,
    tieEmbeddings,
    embeddingScale,
    initStd,
    zeroInitResidual,
    layers,
    ...(ropeScaling === undefined ? {} : { ropeScaling }),
    ...(mup === undefined ? {} : { mup }),
    ...(experts === undefined ? {} : { experts }),
  };
}

/** Whether a layer's feed-forward part has two matrices whose products are multiplied. */
export function isGated({ feedForward }: Pick<ResolvedConfig, "feedForward">): boolean {
  return feedForward === "swiglu" || feedForward === "geglu";
}

/** The experts of a layer, if it has any. */
export function expertsOf({ experts }: ResolvedConfig, layer: number): ResolvedExperts | undefined {
  return experts !== undefined && layer >= experts.denseLayers ? experts : undefined;
}

/** muP's ratio of widths; 1 without it. */
export function widthRatio({ mup, dModel }: ResolvedConfig): number {
  return mup === undefined ? 1 : dModel / mup.baseWidth;
}
