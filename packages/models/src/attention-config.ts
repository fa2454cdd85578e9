/** What attention a layer has. */
import { OptionError } from "@llmeff/tensor";
import { checkChoice, checkFinite, checkFlag, checkKeys, checkObject, checkPositive, refuse } from "./config-checks.js";

/** Scaled dot-product attention. */
export interface DotAttention {
  kind: "dot";
  /** Positions looked back on, the own included; default all. */
  window?: number;
  /**
   * Whether queries and keys are turned by their positions; default true. A layer without positions (NoPE, arXiv:2305.19466) finds content at
   * distances that it was never trained on; layers with windows give the order nearby (arXiv:2501.18795).
   */
  rope?: boolean;
  /**
   * Multiplies the logits of a query that sees `n` keys by `max(1, ln n / ln scaleFrom)`, so that softmax stays as sharp when the sequence
   * grows beyond about `scaleFrom` (arXiv:2501.19399, its `s · ln n` from there on; arXiv:2202.12172). At least 2; default: off.
   */
  scaleFrom?: number;
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

export type ResolvedLayer = (
  | (DotAttention & Required<Pick<DotAttention, "rope">>)
  | (Required<Omit<SimplicialAttention, "w1" | "w2" | "numKvHeads">> & Pick<SimplicialAttention, "w1" | "w2">)
) & {
  qkNorm: boolean;
  numKvHeads: number;
};

const dotKeys = Object.keys({
  kind: true,
  window: true,
  rope: true,
  scaleFrom: true,
} satisfies Record<keyof DotAttention, true>);

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

export function checkLayer(
  layer: LayerAttention,
  where: string,
  numHeads: number,
  positions: "rotary" | "learned",
): void {
  checkObject(where, layer);
  if (layer.kind === "dot") {
    checkKeys(where, layer, dotKeys);
    checkDot(layer, where, positions);
  } else if (layer.kind === "simplicial") {
    checkKeys(where, layer, simplicialKeys);
    checkSimplicial(layer, where, numHeads, positions);
  } else {
    refuse(`${where}.kind`, '"dot" or "simplicial"', (layer as { kind: unknown }).kind);
  }
}

function checkDot({ window, rope, scaleFrom }: DotAttention, where: string, positions: "rotary" | "learned"): void {
  if (window !== undefined) checkPositive(`${where}.window`, window);
  if (rope !== undefined) checkFlag(`${where}.rope`, rope);
  if (rope && positions === "learned") refuseRope(where);
  if (scaleFrom === undefined) return;
  if (!Number.isSafeInteger(scaleFrom) || scaleFrom < 2)
    refuse(`${where}.scaleFrom`, "an integer of at least 2", scaleFrom);
  // The number of keys in a window doesn't grow.
  if (window !== undefined) refuse(`${where}.scaleFrom`, "left out in a layer with a window", scaleFrom);
}

function refuseRope(where: string): never {
  throw new OptionError(
    `[TransformerConfig] ${where} has rope: true in a model with positions: "learned", which rotates nothing. Leave rope out, or use positions: "rotary".`,
  );
}

function checkSimplicial(
  layer: SimplicialAttention,
  where: string,
  numHeads: number,
  positions: "rotary" | "learned",
): void {
  const { numKvHeads, w1, w2, form = "trilinear", k2Bias = 0, v2Bias = 0, rope = false } = layer;
  if (numKvHeads !== undefined) {
    checkPositive(`${where}.numKvHeads`, numKvHeads);
    if (numHeads % numKvHeads !== 0) refuse(`${where}.numKvHeads`, `a divisor of numHeads (${numHeads})`, numKvHeads);
  }
  if (w1 !== undefined) checkPositive(`${where}.w1`, w1);
  if (w2 !== undefined) checkPositive(`${where}.w2`, w2);
  checkChoice(`${where}.form`, form, ["trilinear", "determinant"]);
  checkFinite(`${where}.k2Bias`, k2Bias);
  checkFinite(`${where}.v2Bias`, v2Bias);
  checkFlag(`${where}.rope`, rope);
  if (rope && form === "determinant") {
    throw new OptionError(
      `[TransformerConfig] ${where} has rope: true with form: "determinant", whose chunks of three channels it would not turn as a whole. Leave rope out, or use form: "trilinear".`,
    );
  }
  if (rope && positions === "learned") refuseRope(where);
}

/** What layers take from the model that they are of. */
interface OfModel {
  numKvHeads: number;
  qkNorm: boolean | undefined;
  positions: "rotary" | "learned";
}

export function resolveLayer(layer: LayerAttention, { numKvHeads, qkNorm, positions }: OfModel): ResolvedLayer {
  if (layer.kind === "dot") return { rope: positions === "rotary", ...layer, numKvHeads, qkNorm: qkNorm ?? false };
  const { form = "trilinear", k2Bias = 0, v2Bias = 0, rope = false } = layer;
  return { numKvHeads, ...layer, form, k2Bias, v2Bias, rope, qkNorm: qkNorm ?? true };
}
