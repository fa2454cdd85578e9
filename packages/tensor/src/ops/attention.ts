import { engine, OptionError, ShapeError } from "@llmeff/native";
import { defineOp, type ForwardContext } from "../autograd.js";
import { commonDevice } from "../device.js";
import { accumulationDType } from "../dtype.js";
import { scope } from "../scope.js";
import { formatShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import {
  checkCount,
  checkEqual,
  checkFinite,
  checkFloating,
  checkIds,
  checkRank,
  contiguous,
  rows,
} from "./arguments.js";
import { filled, zerosLike } from "./creation.js";
import { checkAngles, type RopeAngles, turn } from "./rope.js";
import { joined, pieces } from "./slice.js";
import { expandView } from "./views.js";

export interface AttentionOptions {
  /** Multiplies the logits; default `1 / √D`. */
  scale?: number;
  /** A query sees no later key; default true. */
  causal?: boolean;
  /** Keys looked back on, the own position included; default all. */
  window?: number;
  /**
   * Position of the first query among the keys; default `S − T`, so that the last query is at the last key. Negative where the keys begin
   * after the queries, as those of another block of a sequence may.
   */
  qOffset?: number;
  /** Logits become `softcap · tanh(logits / softcap)`; default 0, off. */
  softcap?: number;
  /**
   * Documents of packed rows: int32 ids `[B, T]` of the queries and `[B, S]` of the keys, one tensor for both where they are the same
   * positions. A query sees keys of its own document only; the tiles of others cost nothing.
   */
  documents?: Tensor | { q: Tensor; k: Tensor };
  /**
   * Leading keys that every query sees, whether later or not (a prefix language model): a number, or int32 by row `[B]` or by query
   * `[B, T]`. With documents it counts from the first key of the query's own; window and documents still hold.
   */
  prefix?: number | Tensor;
  /**
   * Turns queries and keys by their positions first, which must be as many: what `attention(rope(q, …), rope(k, …), v)` gives, in fewer passes
   * over memory.
   */
  rope?: RopeAngles;
}

interface Settings {
  scale: number;
  causal: boolean;
  window: number;
  qOffset: number;
  softcap: number;
  /** Documents of queries and keys, and prefixes by query. */
  masks: readonly (Tensor | null)[];
  /** How channels pair up where queries and keys are turned. */
  interleaved: boolean;
}

/** Queries and keys turned by their positions, in one pass where they lie side by side. */
function turned(q: Tensor, k: Tensor, angles: RopeAngles): [Tensor, Tensor] {
  const both = joined([q, k], 2);
  if (both === undefined) return [turn(q, angles, false), turn(k, angles, false)];
  return pieces(turn(both, angles, false), 2, [q.shape[2]!, k.shape[2]!]) as [Tensor, Tensor];
}

/** Places for the gradients: side by side where they can be, as `split` of a product for all three would have them. */
function gradientPlaces(q: Tensor, k: Tensor, v: Tensor): [dq: Tensor, dk: Tensor, dv: Tensor] {
  const [B, T, H, D] = q.shape as [number, number, number, number];
  const [, S, K] = k.shape as [number, number, number];
  if (S !== T || v.shape[3] !== D)
    return [q, k, v].map((x) => Tensor.allocate(x.dtype, x.shape)) as [Tensor, Tensor, Tensor];
  return pieces(Tensor.allocate(q.dtype, [B, T, H + 2 * K, D]), 2, [H, K, K]) as [Tensor, Tensor, Tensor];
}

interface Operands {
  q: Tensor;
  k: Tensor;
  v: Tensor;
  /** Cosines and sines, if queries and keys are turned. */
  tables: readonly Tensor[];
}

/** What the kernels take of the inputs of the op. */
function operandsOf(inputs: readonly Tensor[], { interleaved }: Settings): Operands {
  const tables = inputs.slice(3).map(contiguous);
  const [cos, sin] = tables;
  const [given, keys, v] = inputs.map(rows) as [Tensor, Tensor, Tensor];
  const [q, k] = cos && sin ? turned(given, keys, { cos, sin, interleaved }) : [given, keys];
  return { q, k, v, tables };
}

function saveOperands(
  context: ForwardContext,
  { q, k, v, tables }: Operands,
  { masks }: Settings,
  results: readonly [Tensor, Tensor],
): void {
  context.save(q, k, v, ...results, ...masks.filter((mask) => mask !== null), ...tables);
}

const attentionOp = defineOp<Settings, readonly [Tensor, Tensor]>({
  name: "attention",
  mayBeInfinite: true, // the log-sum-exp of a query that sees no key
  forward(context, inputs, settings) {
    const { scale, causal, window, qOffset, softcap, masks } = settings;
    const operands = operandsOf(inputs, settings);
    const { q, k, v } = operands;
    const [B, T, H] = q.shape as [number, number, number];
    const out = Tensor.allocate(q.dtype, [B, T, H, v.shape[3]!]);
    const lse = Tensor.allocate(accumulationDType(q.dtype), [B, H, T]);
    const [qDoc, kDoc, prefix] = masks.map((mask) => mask?.handle ?? null) as [
      number | null,
      number | null,
      number | null,
    ];
    engine().op.attention(
      q.handle,
      k.handle,
      v.handle,
      qDoc,
      kDoc,
      prefix,
      scale,
      causal,
      window,
      qOffset,
      softcap,
      out.handle,
      lse.handle,
    );
    saveOperands(context, operands, settings, [out, lse]);
    return [out, lse];
  },
  // Turning queries and keys again costs less than their memory.
  saveAgain(context, inputs, settings, results) {
    saveOperands(context, operandsOf(inputs, settings), settings, results);
  },
  backward({ saved, options: { scale, causal, window, qOffset, softcap, masks, interleaved } }, [dout, dlse]) {
    const [q, k, v, out, lse, ...kept] = saved as [Tensor, Tensor, Tensor, Tensor, Tensor, ...Tensor[]];
    const [qDoc, kDoc, prefix] = masks.map((mask) => (mask === null ? null : kept.shift()!.handle)) as [
      number | null,
      number | null,
      number | null,
    ];
    const [cos, sin] = kept;
    const [dq, dk, dv] = gradientPlaces(q, k, v);
    engine().op.attentionGrad(
      contiguous(dout ?? zerosLike(out)).handle,
      dlse === null ? null : contiguous(dlse).handle,
      q.handle,
      k.handle,
      v.handle,
      out.handle,
      lse.handle,
      qDoc,
      kDoc,
      prefix,
      scale,
      causal,
      window,
      qOffset,
      softcap,
      cos?.handle ?? null,
      sin?.handle ?? null,
      interleaved,
      dq.handle,
      dk.handle,
      dv.handle,
    );
    return [dq, dk, dv, ...kept.map(() => null)];
  },
});

/** A window of an attention: absent is unlimited; 0, negative and fractional ones are mistakes. @internal */
export function checkedWindow(where: string, name: string, window: number | undefined): number {
  if (window === undefined) return 0;
  if (!Number.isSafeInteger(window) || window <= 0) {
    throw new OptionError(
      `[${where}] ${name} must be a positive integer; received ${window}. Leave it out for an unlimited window.`,
    );
  }
  return window;
}

/** Query heads share key/value heads in groups of equal size. @internal */
export function checkHeads(where: string, heads: number, kvHeads: number): void {
  if (kvHeads === 0 || heads % kvHeads !== 0) {
    throw new ShapeError(
      `[${where}] the number of query heads must be a multiple of that of key/value heads; received ${heads} and ${kvHeads}.`,
    );
  }
}

/** @internal */
export function checkShapes(where: string, q: Tensor, k: Tensor, v: Tensor): void {
  checkFloating(where, { q, k, v });
  checkRank(where, "q", q, 4, "[B, T, H, D]");
  checkRank(where, "k", k, 4, "[B, S, K, D]");
  checkRank(where, "v", v, 4, "[B, S, K, Dv]");
  const shapes = { q, k, v };
  checkEqual(where, "batch sizes of q and k", q.shape[0]!, k.shape[0]!, shapes);
  checkEqual(where, "batch sizes of k and v", k.shape[0]!, v.shape[0]!, shapes);
  checkEqual(where, "lengths of k and v", k.shape[1]!, v.shape[1]!, shapes);
  checkEqual(where, "heads of k and v", k.shape[2]!, v.shape[2]!, shapes);
  checkEqual(where, "head sizes of q and k", q.shape[3]!, k.shape[3]!, shapes);
  checkHeads(where, q.shape[2]!, k.shape[2]!);
  if (q.shape[3] === 0 || v.shape[3] === 0) {
    throw new ShapeError(
      `[${where}] head sizes must be positive; q is ${formatShape(q.shape)} and v is ${formatShape(v.shape)}.`,
    );
  }
}

function checkMask(
  where: string,
  name: string,
  mask: Tensor,
  q: Tensor,
  forms: readonly (readonly number[])[],
  letters: string,
): void {
  checkIds(where, name, mask);
  commonDevice(where, [q, mask], ["q", name]);
  if (forms.some((form) => form.length === mask.rank && form.every((n, axis) => n === mask.shape[axis]))) return;
  throw new ShapeError(
    `[${where}] ${name} must be ${letters}, here ${forms.map(formatShape).join(" or ")}; received ${formatShape(mask.shape)}.`,
  );
}

function documentsOf(where: string, documents: AttentionOptions["documents"], q: Tensor, S: number) {
  if (documents === undefined) return [null, null] as const;
  const [B, T] = q.shape as [number, number];
  const of = documents instanceof Tensor ? { q: documents, k: documents } : documents;
  checkMask(where, "documents of queries", of.q, q, [[B, T]], "[B, T]");
  checkMask(where, "documents of keys", of.k, q, [[B, S]], "[B, S]");
  return [of.q, of.k] as const;
}

/** The prefix of each query, `[B, T]`. @internal */
export function prefixOf(where: string, prefix: AttentionOptions["prefix"], causal: boolean, q: Tensor): Tensor | null {
  if (prefix === undefined) return null;
  if (!causal) {
    throw new OptionError(
      `[${where}] a prefix frees keys from causality, which causal: false turns off. Leave one of them out.`,
    );
  }
  const [B, T] = q.shape as [number, number];
  if (typeof prefix === "number") {
    checkCount(where, "prefix", prefix);
    return expandView(filled(prefix, "int32", [1, 1], q.deviceNumber), [B, T]);
  }
  checkMask(where, "prefix", prefix, q, [[B], [B, T]], "[B] or [B, T]");
  return prefix.rank === 2 ? prefix : prefix.view([B, T], [prefix.strides[0]!, 0]);
}

/** @internal */
export function settingsOf(where: string, q: Tensor, k: Tensor, options: AttentionOptions): Settings {
  const [, T, , D] = q.shape as [number, number, number, number];
  const S = k.shape[1]!;
  const { scale = 1 / Math.sqrt(D), causal = true, softcap = 0 } = options;
  checkFinite(where, "scale", scale);
  const { qOffset } = options;
  if (qOffset === undefined && causal && S < T) {
    throw new OptionError(
      `[${where}] there are more queries than keys (${T} and ${S}). Give qOffset, the position of the first query among the keys (default S − T).`,
    );
  }
  if (qOffset !== undefined && !Number.isSafeInteger(qOffset)) {
    throw new OptionError(
      `[${where}] qOffset must be an integer; received ${qOffset}. It is the position of the first query among the keys (default S − T).`,
    );
  }
  if (!(softcap >= 0 && Number.isFinite(softcap)))
    throw new OptionError(`[${where}] softcap must be finite and ≥ 0; received ${softcap}.`);
  const window = checkedWindow(where, "window", options.window);
  const documents = documentsOf(where, options.documents, q, S);
  const masks = [...documents, prefixOf(where, options.prefix, causal, q)];
  const interleaved = options.rope?.interleaved ?? false;
  return { scale, causal, window, qOffset: qOffset ?? Math.max(0, S - T), softcap, masks, interleaved };
}

/** The tables that turn queries and keys; none where no channel is turned. @internal */
export function tablesOf(where: string, q: Tensor, k: Tensor, angles: RopeAngles | undefined): readonly Tensor[] {
  if (angles === undefined) return [];
  checkAngles(where, "q", q, angles.cos, angles.sin);
  if (q.shape[1] !== k.shape[1]) {
    throw new ShapeError(
      `[${where}] rope turns queries and keys at the same positions; q is ${formatShape(q.shape)} and k is ${formatShape(k.shape)}. Use rope() on each.`,
    );
  }
  return angles.cos.size > 0 ? [angles.cos, angles.sin] : [];
}

function attend(where: string, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): readonly [Tensor, Tensor] {
  checkShapes(where, q, k, v);
  return scope(() => {
    const settings = settingsOf(where, q, k, options);
    const tables = tablesOf(where, q, k, options.rope);
    if (k.shape[1]! > 0) return attentionOp([q, k, v, ...tables], settings);
    // Rows without keys, whatever the queries: kernels are not asked about empty arrays.
    const [B, T, H] = q.shape as [number, number, number];
    const lse = filled(Number.NEGATIVE_INFINITY, accumulationDType(q.dtype), [B, H, T], q.deviceNumber);
    return [filled(0, q.dtype, [B, T, H, v.shape[3]!], q.deviceNumber), lse];
  });
}

/**
 * Scaled dot-product attention, computed tile by tile: no `[T, S]` array exists, and tiles that a mask hides cost nothing.
 *
 * `out[b,t,h,:] = Σ_s softmax_s(scale · q[b,t,h,:]·k[b,s,h/g,:]) v[b,s,h/g,:]`, with `g = H / K`, over the keys with
 * `s ≤ i` (causal) or `s < prefix`, `i − window < s`, and the query's document, where `i = qOffset + t`. A window without causality is
 * `|i − s| < window`. A query that sees no key gives zeros and has no gradient.
 *
 * @param q - `[B, T, H, D]`
 * @param k - `[B, S, K, D]`; `H` must be a multiple of `K` (grouped queries)
 * @param v - `[B, S, K, Dv]`
 * @returns `[B, T, H, Dv]`
 * @throws {ShapeError} if shapes don't fit or the head counts don't divide
 * @see arXiv:1706.03762 eq. 1
 *
 * @example
 * const out = attention(q, k, v, { window: 512 });
 *
 * @example
 * // Two documents in a row of six positions, which don't see each other.
 * const packed = attention(q, k, v, { documents: tensor(Int32Array.of(0, 0, 0, 1, 1, 1), { shape: [1, 6] }) });
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const [out, lse] = attend("attention", q, k, v, options);
  lse.dispose();
  return out;
}

/** Attention over some keys, with what it takes to merge it with that over others. */
export interface AttentionPart {
  /** `[B, T, H, Dv]` */
  out: Tensor;
  /** Log-sum-exp of each query's logits, `[B, H, T]`; −∞ for one that sees no key. */
  lse: Tensor;
}

/**
 * `attention` with the log-sum-exp of each query's logits: what `mergeAttention` needs to join attention over disjoint sets of keys. Both
 * results have gradients.
 *
 * @param q - `[B, T, H, D]`
 * @param k - `[B, S, K, D]`
 * @param v - `[B, S, K, Dv]`
 * @throws {ShapeError} as `attention`
 */
export function attentionWithLse(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): AttentionPart {
  const [out, lse] = attend("attentionWithLse", q, k, v, options);
  return { out, lse };
}
