import { OptionError } from "@llmeff/tensor";

/** Scaled dot-product attention. */
export interface DotAttention {
  kind: "dot";
  /** Positions looked back on, the own included; default all. */
  window?: number;
}

/** 2-simplicial attention over pairs of positions (arXiv:2507.02754). */
export interface SimplicialAttention {
  kind: "simplicial";
  /** Window of (k1, v1), the own position included; default all. The paper uses 512. */
  w1?: number;
  /** Window of (k2, v2); default all. The paper uses 32. */
  w2?: number;
  /** Default trilinear, as in the paper's models. */
  form?: "trilinear" | "determinant";
  /** Added to k2 inside the op; default 0. */
  k2Bias?: number;
  /** Added to v2 inside the op; default 0. With 1 the layer starts near ordinary attention over (k1, v1). */
  v2Bias?: number;
  /** Rotates q and k1 by their positions; default false: the paper's equation 5 has no positions. */
  rope?: boolean;
}

export type LayerAttention = DotAttention | SimplicialAttention;

/** A decoder-only Transformer: RMSNorm, rotary positions, grouped queries, SwiGLU, pre-norm residual blocks. */
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
  /** Logits of attention become `softcap · tanh(logits / softcap)` in dot layers; default 0, off. */
  attentionSoftcap?: number;
  /** The same for the output logits; default 0, off. */
  finalSoftcap?: number;
  /** `rotary` turns queries and keys (default); `learned` adds a trained vector for each of the maxSeqLen positions, as in GPT-2. */
  positions?: "rotary" | "learned";
  /** Base of the rotary wavelengths; default 10 000. */
  ropeBase?: number;
  /** Added to the mean square in norms; default 1e-5. */
  normEps?: number;
  /** The output layer uses the embedding table; default false. */
  tieEmbeddings?: boolean;
  /** Standard deviation of the initial weights; default 0.02. Matrices that write to the residual stream get it over √(2·numLayers). */
  initStd?: number;
}

/** A configuration with every default filled in, and the attention of each layer. */
export type ResolvedConfig = Required<Omit<TransformerConfig, "attention" | "qkNorm">> & {
  layers: readonly ResolvedLayer[];
};

export type ResolvedLayer = (
  | DotAttention
  | (Required<Omit<SimplicialAttention, "w1" | "w2">> & Pick<SimplicialAttention, "w1" | "w2">)
) & {
  qkNorm: boolean;
};

function checkPositive(name: string, value: unknown): void {
  if (!Number.isSafeInteger(value) || (value as number) <= 0) {
    throw new OptionError(`[TransformerConfig] ${name} must be a positive integer; received ${JSON.stringify(value)}.`);
  }
}

function checkNonNegative(name: string, value: unknown): void {
  if (typeof value !== "number" || !Number.isFinite(value) || value < 0) {
    throw new OptionError(
      `[TransformerConfig] ${name} must be a finite number ≥ 0; received ${JSON.stringify(value)}.`,
    );
  }
}

function resolveLayer(layer: LayerAttention, index: number, qkNorm: boolean | undefined): ResolvedLayer {
  const where = `attention[${index}]`;
  if (layer.kind === "dot") {
    if (layer.window !== undefined) checkPositive(`${where}.window`, layer.window);
    return { ...layer, qkNorm: qkNorm ?? false };
  }
  if (layer.kind === "simplicial") {
    if (layer.w1 !== undefined) checkPositive(`${where}.w1`, layer.w1);
    if (layer.w2 !== undefined) checkPositive(`${where}.w2`, layer.w2);
    return { form: "trilinear", k2Bias: 0, v2Bias: 0, rope: false, ...layer, qkNorm: qkNorm ?? true };
  }
  throw new OptionError(
    `[TransformerConfig] ${where}.kind must be "dot" or "simplicial"; received ${JSON.stringify((layer as { kind: unknown }).kind)}.`,
  );
}

/**
 * Fills in the defaults of a configuration.
 *
 * @throws {OptionError} naming the field that is missing or doesn't fit
 */
export function resolveConfig(config: TransformerConfig): ResolvedConfig {
  const { numKvHeads = config.numHeads, attention = [{ kind: "dot" }], qkNorm } = config;
  const {
    headDim = config.dModel / config.numHeads,
    ffnDim = Math.ceil((config.dModel * 8) / 3 / 8) * 8,
    attentionSoftcap = 0,
    finalSoftcap = 0,
    positions = "rotary",
    ropeBase = 10_000,
    normEps = 1e-5,
    tieEmbeddings = false,
    initStd = 0.02,
  } = config;
  const { vocabSize, dModel, numLayers, numHeads, maxSeqLen } = config;
  for (const [name, value] of Object.entries({
    vocabSize,
    dModel,
    numLayers,
    numHeads,
    numKvHeads,
    maxSeqLen,
    ffnDim,
  })) {
    checkPositive(name, value);
  }
  if (!Number.isInteger(headDim) || headDim <= 0 || headDim % 2 !== 0) {
    throw new OptionError(
      `[TransformerConfig] headDim must be a positive even integer (rotary positions turn pairs); received ${headDim}. Set it, or make dModel (${dModel}) a multiple of 2 · numHeads (${numHeads}).`,
    );
  }
  if (numHeads % numKvHeads !== 0) {
    throw new OptionError(
      `[TransformerConfig] numHeads must be a multiple of numKvHeads; received ${numHeads} and ${numKvHeads}.`,
    );
  }
  for (const [name, value] of Object.entries({ attentionSoftcap, finalSoftcap, normEps, initStd }))
    checkNonNegative(name, value);
  if (positions !== "rotary" && positions !== "learned") {
    throw new OptionError(
      `[TransformerConfig] positions must be "rotary" or "learned"; received ${JSON.stringify(positions)}.`,
    );
  }
  if (!(ropeBase > 0)) throw new OptionError(`[TransformerConfig] ropeBase must be positive; received ${ropeBase}.`);
  if (!Array.isArray(attention) || attention.length === 0) {
    throw new OptionError("[TransformerConfig] attention must be a pattern of at least one layer; received none.");
  }
  const layers = Array.from({ length: numLayers }, (_, i) => {
    const at = i % attention.length;
    return resolveLayer(attention[at] as LayerAttention, at, qkNorm);
  });
  return {
    vocabSize,
    dModel,
    numLayers,
    numHeads,
    numKvHeads,
    headDim,
    ffnDim,
    maxSeqLen,
    attentionSoftcap,
    finalSoftcap,
    positions,
    ropeBase,
    normEps,
    tieEmbeddings,
    initStd,
    layers,
  };
}
