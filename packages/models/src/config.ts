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
  /** Heads of (k1, v1) and (k2, v2) in these layers; default those of the model. The paper's 64 query heads share one. */
  numKvHeads?: number;
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
  /**
   * Rotates q and k1 by their positions; default false: the paper's equation 5 has no positions. Logits of three factors then depend on the
   * positions themselves, not only on their differences as in dot-product attention. The determinant form refuses it: a rotation of pairs
   * of channels means nothing to its chunks of three.
   */
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
  | (Required<Omit<SimplicialAttention, "w1" | "w2" | "numKvHeads">> & Pick<SimplicialAttention, "w1" | "w2">)
) & {
  qkNorm: boolean;
  numKvHeads: number;
};

/** A value of a configuration for a message; JSON has no NaN. */
function show(value: unknown): string {
  return typeof value === "string" || typeof value === "object" ? JSON.stringify(value) : String(value);
}

function refuse(name: string, expected: string, value: unknown): never {
  throw new OptionError(`[TransformerConfig] ${name} must be ${expected}; received ${show(value)}.`);
}

function checkPositive(name: string, value: unknown): void {
  if (!Number.isSafeInteger(value) || (value as number) <= 0) refuse(name, "a positive integer", value);
}

function checkFinite(name: string, value: unknown): void {
  if (typeof value !== "number" || !Number.isFinite(value)) refuse(name, "a finite number", value);
}

function checkNonNegative(name: string, value: unknown): void {
  if (typeof value !== "number" || !Number.isFinite(value) || value < 0) refuse(name, "a finite number ≥ 0", value);
}

function checkFlag(name: string, value: unknown): void {
  if (typeof value !== "boolean") refuse(name, "true or false", value);
}

function checkObject(name: string, value: unknown): void {
  if (typeof value !== "object" || value === null || Array.isArray(value)) refuse(name, "an object", value);
}

/** Refuses keys that nobody would read: a misspelt option must not become a default unseen. */
function checkKeys(name: string, value: object, known: readonly string[]): void {
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    const near = known.find((other) => other.toLowerCase() === key.toLowerCase());
    const advice = near === undefined ? `Known are ${known.join(", ")}.` : `Is ${near} meant?`;
    throw new OptionError(`[TransformerConfig] ${name} has an unknown key ${JSON.stringify(key)}. ${advice}`);
  }
}

const dotKeys = Object.keys({ kind: true, window: true } satisfies Record<keyof DotAttention, true>);

const simplicialKeys = Object.keys({
  kind: true,
  numKvHeads: true,
  w1: true,
  w2: true,
  form: true,
  k2Bias: true,
  v2Bias: true,
  rope: true,
} satisfies Record<keyof SimplicialAttention, true>);

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
  attentionSoftcap: true,
  finalSoftcap: true,
  positions: true,
  ropeBase: true,
  normEps: true,
  tieEmbeddings: true,
  initStd: true,
} satisfies Record<keyof TransformerConfig, true>);

function checkLayer(layer: LayerAttention, where: string, numHeads: number, positions: "rotary" | "learned"): void {
  checkObject(where, layer);
  if (layer.kind === "dot") {
    checkKeys(where, layer, dotKeys);
    if (layer.window !== undefined) checkPositive(`${where}.window`, layer.window);
  } else if (layer.kind === "simplicial") {
    checkKeys(where, layer, simplicialKeys);
    const { numKvHeads, w1, w2, form = "trilinear", k2Bias = 0, v2Bias = 0, rope = false } = layer;
    if (numKvHeads !== undefined) {
      checkPositive(`${where}.numKvHeads`, numKvHeads);
      if (numHeads % numKvHeads !== 0) refuse(`${where}.numKvHeads`, `a divisor of numHeads (${numHeads})`, numKvHeads);
    }
    if (w1 !== undefined) checkPositive(`${where}.w1`, w1);
    if (w2 !== undefined) checkPositive(`${where}.w2`, w2);
    if (form !== "trilinear" && form !== "determinant") refuse(`${where}.form`, '"trilinear" or "determinant"', form);
    checkFinite(`${where}.k2Bias`, k2Bias);
    checkFinite(`${where}.v2Bias`, v2Bias);
    checkFlag(`${where}.rope`, rope);
    if (rope && form === "determinant") {
      throw new OptionError(
        `[TransformerConfig] ${where} has rope: true with form: "determinant", whose chunks of three channels it would not turn as a whole. Leave rope out, or use form: "trilinear".`,
      );
    }
    if (rope && positions === "learned") {
      throw new OptionError(
        `[TransformerConfig] ${where} has rope: true in a model with positions: "learned", which rotates nothing. Leave rope out, or use positions: "rotary".`,
      );
    }
  } else {
    refuse(`${where}.kind`, '"dot" or "simplicial"', (layer as { kind: unknown }).kind);
  }
}

function resolveLayer(layer: LayerAttention, numKvHeads: number, qkNorm: boolean | undefined): ResolvedLayer {
  if (layer.kind === "dot") return { ...layer, numKvHeads, qkNorm: qkNorm ?? false };
  const { form = "trilinear", k2Bias = 0, v2Bias = 0, rope = false } = layer;
  return { numKvHeads, ...layer, form, k2Bias, v2Bias, rope, qkNorm: qkNorm ?? true };
}

/**
 * Fills in the defaults of a configuration.
 *
 * @throws {OptionError} naming the field that is missing or doesn't fit
 */
export function resolveConfig(config: TransformerConfig): ResolvedConfig {
  checkObject("the configuration", config);
  checkKeys("the configuration", config, configKeys);
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
  checkFlag("tieEmbeddings", tieEmbeddings);
  if (qkNorm !== undefined) checkFlag("qkNorm", qkNorm);
  if (positions !== "rotary" && positions !== "learned") refuse("positions", '"rotary" or "learned"', positions);
  if (!(ropeBase > 0 && Number.isFinite(ropeBase))) refuse("ropeBase", "a positive number", ropeBase);
  if (!Array.isArray(attention) || attention.length === 0) {
    throw new OptionError("[TransformerConfig] attention must be a pattern of at least one layer; received none.");
  }
  for (const [i, layer] of attention.entries()) checkLayer(layer, `attention[${i}]`, numHeads, positions);
  const layers = Array.from({ length: numLayers }, (_, i) =>
    resolveLayer(attention[i % attention.length] as LayerAttention, numKvHeads, qkNorm),
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
