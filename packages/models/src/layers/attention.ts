/** The attention part of a block: projections to heads, their norms and rotation, the cache, and the mixing of values. */
import {
  type AttentionOptions,
  attention,
  cachedAttention,
  concat,
  type DecodeMemory,
  decodeAttention,
  linear,
  linearAdd,
  linearMany,
  type RopeAngles,
  reshape,
  simplicialAttention,
  slice,
  type Tensor,
} from "@llmeff/tensor";
import type { ResolvedLayer } from "../attention-config.js";
import type { LayerCache, RowCache } from "../cache.js";
import type { CacheSpan, NextTokens } from "../cached-tokens.js";
import type { ResolvedConfig } from "../config.js";
import type { AttentionMasks } from "../forward-options.js";
import { attentionBiases } from "../parameters.js";
import { lengthScaled } from "./length-scale.js";
import type { Lookup } from "./lookup.js";
import { type Along, headNormed } from "./norm.js";
import { keepsKeysUnturned, rowsOf, turned } from "./rotary.js";

type LayerOf<K extends ResolvedLayer["kind"]> = Extract<ResolvedLayer, { kind: K }>;

/** What attention depends on beside its input and its layer. */
export interface AttentionContext {
  config: ResolvedConfig;
  /** The parameters of this layer's attention. */
  parameter: Lookup;
  /** Of the tokens of the pass. */
  angles: RopeAngles | undefined;
  masks: AttentionMasks;
  /** Number of the block that the layer is in. */
  layer: number;
  /** The parts of the pass that belong to one cache each; undefined without caches. */
  spans: readonly CacheSpan[] | undefined;
  /** Of a pass over the next token of several sequences, in the place of spans. */
  next: NextTokens | undefined;
  /** What the products take along, so that `x` isn't normed yet and the result is the stream; undefined: nothing. */
  along?: Along | undefined;
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
  const [rows, weight] = [reshape(mixed, [B, T, config.numHeads * config.headDim]), parameter("o_proj.weight")];
  if (context.along !== undefined) return linearAdd(context.along.residual, rows, weight);
  return linear(rows, weight, attentionBiases(config).output ? parameter("o_proj.bias") : undefined);
}

/** Projections as heads `[B, T, heads, headDim]`, those of `normed` with the RMS norm of their name. */
function heads(
  { config, parameter, along }: AttentionContext,
  x: Tensor,
  names: readonly string[],
  normed: readonly string[],
): Tensor[] {
  const [B, T] = x.shape as [number, number];
  const { headDim } = config;
  const weights = names.map((name) => parameter(`${name}_proj.weight`));
  const projected = attentionBiases(config).inputs
    ? weights.map((weight, i) => linear(x, weight, parameter(`${names[i]}_proj.bias`)))
    : linearMany(x, weights, { norm: along?.norm });
  return projected.map((all, i) => {
    const split = reshape(all, [B, T, all.shape[2]! / headDim, headDim]);
    return normed.includes(names[i]!) ? headNormed(config, parameter, `${names[i]}_norm`, split) : split;
  });
}

/** The keys of all positions that a cache holds, these added, turned by their positions; and the position of its first. */
function rememberedKeys(
  cache: RowCache,
  k: Tensor,
  unturned: RopeAngles | undefined,
): { rows: Tensor; offset: number } {
  const { rows, offset } = cache.append(k);
  if (unturned === undefined) return { rows, offset };
  return { rows: turned(rows, rowsOf(unturned, offset, offset + rows.shape[1]!)), offset };
}

/** Attention of each span over its own cache, `[B, T, H, D]` of all. */
function overSpans<const Heads extends readonly Tensor[]>(
  spans: readonly CacheSpan[],
  heads: Heads,
  attended: (span: CacheSpan, heads: Heads) => Tensor,
): Tensor {
  if (spans.length === 1) return attended(spans[0]!, heads);
  const parts = spans.map((span) =>
    attended(span, heads.map((x) => slice(x, 1, span.from, span.from + span.length)) as readonly Tensor[] as Heads),
  );
  return concat(parts, 1);
}

/** The prefix among keys that begin at an absolute position; none for queries behind it, which see it anyway. */
function masksFrom({ prefix, start }: CacheSpan, offset: number): { prefix?: number } {
  return prefix === undefined || start >= prefix ? {} : { prefix: Math.max(0, prefix - offset) };
}

function dot(context: AttentionContext, layer: LayerOf<"dot">, x: Tensor): Tensor {
  const { config, masks, spans, next } = context;
  const angles = layer.rope ? context.angles : undefined;
  const [plain, k, v] = heads(context, x, ["q", "k", "v"], layer.qkNorm ? ["q", "k"] : []) as [Tensor, Tensor, Tensor];
  const places = next?.positions ?? spans ?? [{ start: 0, length: x.shape[1]! }];
  const q = lengthScaled(plain, places, layer.scaleFrom);
  const options: AttentionOptions = {
    scale: config.attentionScale,
    softcap: config.attentionSoftcap,
    ...(layer.window === undefined ? {} : { window: layer.window }),
  };
  if (next !== undefined) {
    const memories = next.caches.map(({ layers }) => memoryOf(layers[context.layer]!));
    return decodeAttention(q, k, v, memories, next.positions, { ...options, ...withRope(angles) });
  }
  if (spans === undefined) return attention(q, k, v, { ...options, ...masks, ...withRope(angles) });
  if (keepsKeysUnturned(config)) {
    return overSpans(spans, [turned(q, angles), k, v], (span, [q, k, v]) => {
      const cache = span.cache.layers[context.layer]!;
      const { rows, offset } = rememberedKeys(cache.k, k, layer.rope ? span.keyAngles : undefined);
      const own = { ...options, ...masksFrom(span, offset), qOffset: span.start - offset };
      return attention(q, rows, cache.v.append(v).rows, own);
    });
  }
  const sequences = spans.map((span) => {
    const cache = span.cache.layers[context.layer]!;
    const { buffer: keys, kept, offset } = cache.k.reserve(k, span.length);
    const { buffer: values } = cache.v.reserve(v, span.length);
    return { length: span.length, keys, values, kept, ...masksFrom(span, offset) };
  });
  return cachedAttention(q, k, v, sequences, { ...options, ...withRope(angles) });
}

function memoryOf({ k, v }: LayerCache): DecodeMemory {
  const { buffer: keys, offset } = k.memory!;
  return { keys, values: v.memory!.buffer, offset };
}

const withRope = (rope: RopeAngles | undefined) => (rope === undefined ? {} : { rope });

function simplicial(context: AttentionContext, layer: LayerOf<"simplicial">, x: Tensor): Tensor {
  const { config, spans } = context;
  const angles = layer.rope ? context.angles : undefined;
  const all = heads(context, x, ["q", "k", "k2", "v", "v2"], layer.qkNorm ? ["q", "k", "k2"] : []);
  const [straight, k1, k2, v1, v2] = all as [Tensor, Tensor, Tensor, Tensor, Tensor];
  const q = turned(straight, angles);
  const { form, k2Bias, v2Bias, w1, w2 } = layer;
  const options = { form, k2Bias, v2Bias, ...(w1 === undefined ? {} : { w1 }), ...(w2 === undefined ? {} : { w2 }) };
  if (spans === undefined) return simplicialAttention(q, turned(k1, angles), k2, v1, v2, options);
  const keys = turned(k1, keepsKeysUnturned(config) ? undefined : angles);
  return overSpans(spans, [q, keys, k2, v1, v2], (span, [q, k1, k2, v1, v2]) => {
    const cache = span.cache.layers[context.layer]!;
    const first = { k: rememberedKeys(cache.k, k1, layer.rope ? span.keyAngles : undefined), v: cache.v.append(v1) };
    const second = { k: cache.k2!.append(k2), v: cache.v2!.append(v2) };
    return simplicialAttention(q, first.k.rows, second.k.rows, first.v.rows, second.v.rows, {
      ...options,
      qOffset: span.start,
      k1Offset: first.k.offset,
      k2Offset: second.k.offset,
    });
  });
}
