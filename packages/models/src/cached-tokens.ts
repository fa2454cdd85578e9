/** Forward passes over the new tokens of several sequences, each with a cache of its own. */
import { concat, OptionError, type RopeAngles, ShapeError, slice, type Tensor } from "@llmeff/tensor";
import type { KvCache } from "./cache.js";
import type { ResolvedConfig } from "./config.js";
import { keepsKeysUnturned } from "./layers/rotary.js";

/** New tokens of one sequence, and what is remembered of those before them. */
export interface CachedTokens {
  /** Of a batch of one. The new tokens are added to it. */
  cache: KvCache;
  /** New tokens. */
  length: number;
  /** Of these, how many last ones `lastLogits` scores; default 1. */
  scored?: number;
  /** Leading positions of the sequence that see each other (prefix language model); they must come in its first pass. */
  prefix?: number;
}

/**
 * The next token of each of several sequences. Where they are is known to the device, so that a captured pass goes on as they grow; that their caches
 * hold one position more is for the caller to count, who sees to it that they have room.
 */
export interface NextTokens {
  /** Of a batch of one each. */
  caches: readonly KvCache[];
  /** int32 `[N]`: the position of each token. */
  positions: Tensor;
}

/**
 * What a forward pass remembers: the cache of a batch, or those of several sequences with their numbers of new tokens, or with one new token each at
 * positions that the device knows.
 */
export type Remembered = KvCache | readonly CachedTokens[] | NextTokens;

export function isNext(cache: Remembered | undefined): cache is NextTokens {
  return cache !== undefined && "positions" in cache;
}

/** Whether a model's layers take the next tokens at positions that the device knows. */
export function takesNextTokens(config: ResolvedConfig): boolean {
  return config.layers.every(({ kind }) => kind === "dot") && config.headDim <= 256 && !keepsKeysUnturned(config);
}

/** Refuses next tokens that the model doesn't take, or that aren't one for each cache. */
export function checkNextTokens(config: ResolvedConfig, { caches, positions }: NextTokens, tokens: Tensor): void {
  const [B, N] = tokens.shape as [number, number];
  if (!takesNextTokens(config)) {
    throw new OptionError(
      "[Transformer] next tokens at positions of a tensor are for dot-product layers with heads of at most 256 channels, without dynamic rotary scaling. Give each cache with its number of tokens.",
    );
  }
  if (B !== 1 || N !== caches.length || positions.rank !== 1 || positions.shape[0] !== N) {
    throw new ShapeError(
      `[Transformer] tokens must be [1, N] and positions [N] for ${caches.length} caches; received [${tokens.shape.join(", ")}] and [${positions.shape.join(", ")}].`,
    );
  }
  if (new Set(caches).size !== N || caches.some(({ batchSize, room }) => batchSize !== 1 || room < 1)) {
    throw new OptionError(
      "[Transformer] next tokens need a cache each, of a batch of one that has begun and has room for a position more.",
    );
  }
}

export function isSeveral(cache: Remembered | undefined): cache is readonly CachedTokens[] {
  return Array.isArray(cache);
}

/** Tokens of a pass that belong to one cache: all rows of a batch, or one of several sequences in a row. */
export interface CacheSpan {
  cache: KvCache;
  /** The first of its tokens in the pass. */
  from: number;
  length: number;
  /** Position of that token in its sequence. */
  start: number;
  prefix: number | undefined;
  /** Angles of all its positions, where its keys are kept unturned. */
  keyAngles: RopeAngles | undefined;
}

/** The spans of sequences whose tokens follow one another. */
export function spansOf(parts: readonly CachedTokens[]): CacheSpan[] {
  let from = 0;
  return parts.map(({ cache, length, prefix }) => {
    from += length;
    return { cache, from: from - length, length, start: cache.length, prefix, keyAngles: undefined };
  });
}

/** Refuses sequences that don't fill the tokens of a pass, or that it would mix up. */
export function checkCachedTokens(parts: readonly CachedTokens[], tokens: Tensor): void {
  const [B, T] = tokens.shape as [number, number];
  const lengths = parts.map(({ length }) => length);
  const whole = lengths.every((length) => Number.isSafeInteger(length) && length > 0);
  if (B !== 1 || !whole || lengths.reduce((sum, length) => sum + length, 0) !== T) {
    throw new ShapeError(
      `[Transformer] tokens of several caches must be [1, T] with T the sum of their positive lengths; received [${B}, ${T}] and lengths ${lengths.join(", ")}.`,
    );
  }
  if (new Set(parts.map(({ cache }) => cache)).size !== parts.length) {
    throw new OptionError("[Transformer] the same cache is given for two sequences of a pass. Each needs its own.");
  }
  for (const { cache, length, prefix, scored = 1 } of parts) {
    if (cache.batchSize !== undefined && cache.batchSize !== 1) {
      throw new ShapeError(
        `[Transformer] caches of several sequences must each hold one; received one with a batch of ${cache.batchSize}.`,
      );
    }
    if (!Number.isSafeInteger(scored) || scored < 0 || scored > length) {
      throw new ShapeError(`[Transformer] of ${length} new tokens, 0..${length} can be scored; received ${scored}.`);
    }
    checkCausalPrefix(prefix, cache.length, length);
  }
}

/** A prefix whose later part comes after the first was computed would have been hidden from it. */
function checkCausalPrefix(prefix: number | undefined, start: number, length: number): void {
  if (prefix === undefined) return;
  if (!Number.isSafeInteger(prefix) || prefix < 0) {
    throw new OptionError(`[Transformer] a prefix must be a non-negative integer; received ${prefix}.`);
  }
  if (start + length < prefix || (start > 0 && start < prefix)) {
    throw new OptionError(
      `[Transformer] a prefix of ${prefix} positions must come whole in the first pass of its sequence; this one has positions ${start}..${start + length - 1}.`,
    );
  }
}

/** The last rows of each sequence that are to be scored, of the rows `[1, T, C]` of all. */
export function lastRows(hidden: Tensor, parts: readonly CachedTokens[]): Tensor {
  if (parts.every(({ length, scored = 1 }) => scored === length)) return hidden;
  let end = 0;
  const rows: Tensor[] = [];
  for (const { length, scored = 1 } of parts) {
    end += length;
    if (scored > 0) rows.push(slice(hidden, 1, end - scored, end));
  }
  return rows.length === 0 ? slice(hidden, 1, 0, 0) : concat(rows, 1);
}
