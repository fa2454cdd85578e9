import { copyInto, keep, OptionError, ShapeError, scope, slice, Tensor } from "@llmeff/tensor";
import type { ResolvedConfig } from "./config.js";

/** The memory of a cache, in which the next rows come behind `kept` others. */
export interface Reserved {
  buffer: Tensor;
  kept: number;
  /** Absolute position of the first row. */
  offset: number;
}

interface RowCacheOptions {
  /** Positions that a query sees, its own included; undefined for all. */
  window: number | undefined;
  /** Positions that `truncate` can go back by. */
  rollback: number;
  /** Positions to make room for at first. */
  expected: number;
  maxSeqLen: number;
}

/** Rows `[B, T, K, D]` of one key or value projection, of all positions so far or of the last `window` and those to go back by. */
export class RowCache {
  #buffer: Tensor | undefined;
  #length = 0;
  /** Absolute position of the first row held. */
  #offset = 0;

  constructor(private readonly options: RowCacheOptions) {}

  /** Sequences in a batch; undefined before the first rows. */
  get batchSize(): number | undefined {
    return this.#buffer?.shape[0];
  }

  /**
   * Makes room for rows behind those held, which the caller writes.
   *
   * @param rows - such as are to come, `[B, T, K, D]`
   */
  reserve(rows: Tensor, added = rows.shape[1]!): Reserved {
    if (this.#buffer && this.#buffer.shape[0] !== rows.shape[0]) {
      throw new ShapeError(
        `[KvCache] the batch size was ${this.#buffer.shape[0]} and is now ${rows.shape[0]}; use a cache for each batch.`,
      );
    }
    this.#makeRoom(rows, added);
    const kept = this.#length;
    this.#length += added;
    return { buffer: this.#buffer!, kept, offset: this.#offset };
  }

  /** Adds rows behind those held. @returns a view of the rows that the new queries may look at, and the absolute position of its first */
  append(rows: Tensor): { rows: Tensor; offset: number } {
    const { buffer, kept, offset } = this.reserve(rows);
    scope(() => void copyInto(slice(buffer, 1, kept, this.#length), rows));
    return { rows: slice(buffer, 1, 0, this.#length), offset };
  }

  /** Rows that fit behind those held without moving them. */
  get room(): number {
    return (this.#buffer?.shape[1] ?? 0) - this.#length;
  }

  /** The memory and the absolute position of its first row; undefined before the first rows. */
  get memory(): { buffer: Tensor; offset: number } | undefined {
    return this.#buffer && { buffer: this.#buffer, offset: this.#offset };
  }

  /** Counts rows that were written behind those held, into the room for them. */
  count(added: number): void {
    this.#length += added;
  }

  /** The least length, beside 0, at which the next query would find the rows of its window. */
  get earliest(): number {
    const { window } = this.options;
    return window === undefined || this.#offset === 0 ? 0 : this.#offset + window - 1;
  }

  /** Forgets the positions from `length` on; `earliest` says how far back that is possible. */
  truncate(length: number): void {
    if (length === 0) this.#offset = 0;
    this.#length = length - this.#offset;
  }

  /** Takes over what another of the same layer holds of its first `length` positions, as far as it is needed here. */
  copyFrom(other: RowCache, length: number): void {
    const from = Math.max(other.#offset, length - this.#needed(length));
    if (other.#buffer === undefined || length === 0) return;
    this.#length = length - from;
    this.#offset = from;
    this.#buffer = this.#allocate(other.#buffer, this.#length, 0);
    const [target, source] = [this.#buffer, other.#buffer];
    scope(
      () =>
        void copyInto(
          slice(target, 1, 0, this.#length),
          slice(source, 1, from - other.#offset, length - other.#offset),
        ),
    );
  }

  /** Of `rows`, how many later queries look at, or a rollback may bring back. */
  #needed(rows: number): number {
    const { window, rollback } = this.options;
    return window === undefined ? rows : Math.min(rows, window - 1 + rollback);
  }

  #allocate(like: Tensor, kept: number, added: number): Tensor {
    const { window, rollback, expected, maxSeqLen } = this.options;
    // A window needs its last w − 1 rows; with twice that room they move once in about w steps.
    const most = window === undefined ? maxSeqLen : 2 * (window + rollback);
    const room = Math.max(Math.min(most, Math.max(expected, 2 * kept)), kept + added);
    const [B, , K, D] = like.shape as [number, number, number, number];
    // Nobody reads a row before it is written.
    return keep(Tensor.allocate(like.dtype, [B, room, K, D], like.deviceNumber));
  }

  #makeRoom(like: Tensor, added: number): void {
    const old = this.#buffer;
    if (old && this.#length + added <= old.shape[1]!) return;
    const kept = this.#needed(this.#length);
    const buffer = this.#allocate(like, kept, added);
    if (old) {
      scope(() => void copyInto(slice(buffer, 1, 0, kept), slice(old, 1, this.#length - kept, this.#length)));
      old.dispose();
    }
    this.#offset += this.#length - kept;
    this.#length = kept;
    this.#buffer = buffer;
  }

  dispose(): void {
    this.#buffer?.dispose();
    this.#buffer = undefined;
  }
}

/** Rows of one layer: keys and values, and for a 2-simplicial layer the second keys and values. */
export interface LayerCache {
  k: RowCache;
  v: RowCache;
  k2?: RowCache;
  v2?: RowCache;
}

export interface KvCacheOptions {
  /**
   * Positions to make room for at once, default all that the model is prepared for; further ones take a copy of the rows each time their number
   * has doubled.
   */
  expected?: number;
  /** Positions that `truncate` can go back by, however long the sequence is: windowed layers hold as many more rows. Default 0. */
  rollback?: number;
}

/**
 * What a model remembers of a sequence while it generates. A windowed layer holds a number of rows that does not grow with the sequence:
 * of a 2-simplicial layer the last w1 of (k, v) and w2 of (k2, v2).
 *
 * @example
 * using cache = new KvCache(model.config, { rollback: 8 });
 * model.lastLogits(params, draft, cache); // 8 tokens of which the first 3 turn out to be right
 * cache.truncate(cache.length - 5);
 */
export class KvCache {
  readonly layers: readonly LayerCache[];
  #length = 0;
  /** Whether a forward pass has begun and not ended: some layers may then hold its rows and others not. */
  #unfinished = false;

  /** @throws {OptionError} for an option outside its domain */
  constructor(
    private readonly config: ResolvedConfig,
    { expected = config.maxSeqLen, rollback = 0 }: KvCacheOptions = {},
  ) {
    if (!Number.isSafeInteger(expected) || expected <= 0) {
      throw new OptionError(`[KvCache] expected must be a positive integer; received ${expected}.`);
    }
    if (!Number.isSafeInteger(rollback) || rollback < 0) {
      throw new OptionError(`[KvCache] rollback must be a non-negative integer; received ${rollback}.`);
    }
    const { maxSeqLen } = config;
    const rows = (window: number | undefined) => new RowCache({ window, rollback, expected, maxSeqLen });
    this.layers = config.layers.map((layer) =>
      layer.kind === "dot"
        ? { k: rows(layer.window), v: rows(layer.window) }
        : { k: rows(layer.w1), v: rows(layer.w1), k2: rows(layer.w2), v2: rows(layer.w2) },
    );
  }

  /** Positions seen so far. */
  get length(): number {
    return this.#length;
  }

  /** Sequences of the batch; undefined before the first pass. */
  get batchSize(): number | undefined {
    return this.layers[0]!.k.batchSize;
  }

  /** Positions for which all layers have room without moving their rows. */
  get room(): number {
    const room = this.#rows().reduce((least, rows) => Math.min(least, rows.room), this.config.maxSeqLen - this.#length);
    return this.#unfinished ? 0 : Math.max(0, room);
  }

  /** Counts positions whose rows the device has written into the room for them. */
  count(positions: number): void {
    for (const rows of this.#rows()) rows.count(positions);
    this.#length += positions;
  }

  /** The least length, beside 0, that `truncate` can go back to. */
  get earliest(): number {
    return this.#rows().reduce((latest, rows) => Math.max(latest, rows.earliest), 0);
  }

  /**
   * To be called before the layers append the rows of a forward pass; `advance` ends it.
   *
   * @throws {OptionError} if that many further positions are more than the model is prepared for, or if an earlier pass failed half-way
   */
  begin(positions: number): void {
    if (this.#unfinished) {
      throw new OptionError(
        `[KvCache] an earlier forward pass failed after ${this.#length} positions, and left its rows in some of the layers. Take them back with truncate(${this.#length}), or start again with a new cache.`,
      );
    }
    if (this.#length + positions > this.config.maxSeqLen) {
      throw new OptionError(
        `[KvCache] ${this.#length} positions are held and ${positions} are to follow, but the model's maxSeqLen is ${this.config.maxSeqLen}.`,
      );
    }
    this.#unfinished = true;
  }

  /** Counts the positions of a forward pass, after all layers have appended theirs. */
  advance(positions: number): void {
    this.#length += positions;
    this.#unfinished = false;
  }

  /**
   * Forgets the positions from `length` on, and the rows that a failed pass has left: the next pass goes on from there as if they had never been.
   *
   * @throws {OptionError} if more positions are asked for than are held, or a windowed layer has given up rows that it would need again; nothing is
   * changed then
   */
  truncate(length: number): void {
    this.#checkPast("truncate", length);
    for (const rows of this.#rows()) rows.truncate(length);
    this.#length = length;
    this.#unfinished = false;
  }

  /**
   * A copy of the first `length` positions, default all: another sequence that begins like this one needs no pass over them.
   *
   * @throws {OptionError} as `truncate`
   */
  clone({ length = this.#length, ...options }: KvCacheOptions & { length?: number } = {}): KvCache {
    this.#checkPast("clone", length);
    const copy = new KvCache(this.config, options);
    const sources = this.#rows();
    try {
      for (const [i, rows] of copy.#rows().entries()) rows.copyFrom(sources[i]!, length);
    } catch (error) {
      copy.dispose(); // the rows of the layers before the one that there was no memory for
      throw error;
    }
    copy.#length = length;
    return copy;
  }

  #checkPast(where: string, length: number): void {
    if (!Number.isSafeInteger(length) || length < 0 || length > this.#length) {
      throw new OptionError(
        `[KvCache.${where}] length must be an integer in 0..${this.#length}, the positions held; received ${length}.`,
      );
    }
    const { earliest } = this;
    if (length > 0 && length < earliest) {
      throw new OptionError(
        `[KvCache.${where}] a windowed layer no longer holds the rows before position ${length}: of ${this.#length} positions, one can go back to ${earliest}. Make the cache with a rollback of ${this.#length - length} or more.`,
      );
    }
  }

  #rows(): RowCache[] {
    return this.layers.flatMap((layer) => Object.values(layer) as RowCache[]);
  }

  dispose(): void {
    for (const rows of this.#rows()) rows.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
