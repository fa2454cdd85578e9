/** The attention part of a block: projections to heads, their norms and rotation, the cache, and the mixing of values. */
import {
  type AttentionOptions,
  attention,
  linear,
  linearMany,
  type RopeAngles,
  reshape,
  simplicialAttention,
  type Tensor,
} from "@llmeff/tensor";
import type { ResolvedLayer } from "../attention-config.js";
import type { LayerCache, RowCache } from "../cache.js";
import type { ResolvedConfig } from "../config.js";
import type { AttentionMasks } from "../forward-options.js";
import { attentionBiases } from "../parameters.js";
import type { Lookup } from "./lookup.js";
import { lengthScaled } from "./length-scale.js";
import { headNormed } from "./norm.js";
import { type Angles, rowsOf, turned } from "./rotary.js";

type LayerOf<K extends ResolvedLayer["kind"]> = Extract<ResolvedLayer, { kind: K }>;

/** What attention depends on beside its input and its layer. */
export interface AttentionContext {
  config: ResolvedConfig;
  /** The parameters of this layer's attention. */
  parameter: Lookup;
  angles: Angles | undefined;
  masks: AttentionMasks;
  /** Absolute position of the first query. */
  start: number;
  cache: LayerCache | undefined;
}

/**
 * Attention of one layer with all its projections.
 *
 * @param x - `[B, T, C]`
 * @returns `[B, T, C]`
 */
export function attend(context: AttentionContext, layer: ResolvedLayer, x: Tensor): Tensor {
  const mixed = layer.kind === "dot" ? dot(context, layer, x) : simplicial(context, layer, x);
  const { config, parameter } = context;
  const [B, T] = x.shape as [number, number];
  const bias = attentionBiases(config).output ? parameter("o_proj.bias") : undefined;
  return linear(reshape(mixed, [B, T, config.numHeads * config.headDim]), parameter("o_proj.weight"), bias);
}

/** Projections as heads `[B, T, heads, headDim]`, those of `normed` with the RMS norm of their name. */
function heads(
  { config, parameter }: AttentionContext,
  x: Tensor,
  names: readonly string[],
  normed: readonly string[],
): Tensor[] {
  const [B, T] = x.shape as [number, number];
  const { headDim } = config;
  const weights = names.map((name) => parameter(`${name}_proj.weight`));
  const projected = attentionBiases(config).inputs
    ? weights.map((weight, i) => linear(x, weight, parameter(`${names[i]}_proj.bias`)))
    : linearMany(x, weights);
  return projected.map((all, i) => {
    const split = reshape(all, [B, T, all.shape[2]! / headDim, headDim]);
    return normed.includes(names[i]!) ? headNormed(config, parameter, `${names[i]}_norm`, split) : split;
  });
}

/** The keys of all positions that a cache holds, these added, turned by their positions; and the position of its first. */
function rememberedKeys(cache: RowCache, k: Tensor, angles: Angles | undefined): { rows: Tensor; offset: number } {
  if (angles?.keys === undefined) return cache.append(turned(k, angles?.own));
  const { rows, offset } = cache.append(k);
  return { rows: turned(rows, rowsOf(angles.keys, offset, offset + rows.shape[1]!)), offset };
}

/** The masks of keys that begin at an absolute position. */
function masksFrom({ prefix, ...masks }: AttentionMasks, offset: number): AttentionMasks {
  if (prefix === undefined) return masks;
  return { ...masks, prefix: typeof prefix === "number" ? Math.max(0, prefix - offset) : prefix };
}

function dot(context: AttentionContext, layer: LayerOf<"dot">, x: Tensor): Tensor {
  const { config, masks, start, cache } = context;
  const angles = layer.rope ? context.angles : undefined;
  const [plain, k, v] = heads(context, x, ["q", "k", "v"], layer.qkNorm ? ["q", "k"] : []) as [Tensor, Tensor, Tensor];
  const q = lengthScaled(plain, start, layer.scaleFrom);
  const options: AttentionOptions = {
    scale: config.attentionScale,
    softcap: config.attentionSoftcap,
    ...(layer.window === undefined ? {} : { window: layer.window }),
  };
  if (cache === undefined) return attention(q, k, v, { ...options, ...masks, ...withRope(angles?.own) });
  const keys = rememberedKeys(cache.k, k, angles);
  const values = cache.v.append(v);
  return attention(turned(q, angles?.own), keys.rows, values.rows, {
    ...options,
    ...masksFrom(masks, keys.offset),
    qOffset: start - keys.offset,
  });
}

const withRope = (rope: RopeAngles | undefined) => (rope === undefined ? {} : { rope });

function simplicial(context: AttentionContext, layer: LayerOf<"simplicial">, x: Tensor): Tensor {
  const { start, cache } = context;
  const angles = layer.rope ? context.angles : undefined;
  const all = heads(context, x, ["q", "k", "k2", "v", "v2"], layer.qkNorm ? ["q", "k", "k2"] : []);
  const [straight, k1, k2, v1, v2] = all as [Tensor, Tensor, Tensor, Tensor, Tensor];
  const q = turned(straight, angles?.own);
  const { form, k2Bias, v2Bias, w1, w2 } = layer;
  const options = { form, k2Bias, v2Bias, ...(w1 === undefined ? {} : { w1 }), ...(w2 === undefined ? {} : { w2 }) };
  if (cache === undefined) return simplicialAttention(q, turned(k1, angles?.own), k2, v1, v2, options);
  const first = { k: rememberedKeys(cache.k, k1, angles), v: cache.v.append(v1) };
  const second = { k: cache.k2!.append(k2), v: cache.v2!.append(v2) };
  return simplicialAttention(q, first.k.rows, second.k.rows, first.v.rows, second.v.rows, {
    ...options,
    qOffset: start,
    k1Offset: first.k.offset,
    k2Offset: second.k.offset,
  });
}
