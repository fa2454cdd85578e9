import { copyInto, keep, OptionError, ShapeError, scope, slice, type Tensor, zeros } from "@llmeff/tensor";
import type { ResolvedConfig } from "./config.js";

/** Rows `[B, T, K, D]` of one key or value projection, of all positions so far or of the last `window`. */
export class RowCache {
  #buffer: Tensor | undefined;
  #length = 0;
  /** Absolute position of the first row held. */
  #offset = 0;

  constructor(
    private readonly window: number | undefined,
    private readonly expected: number,
    private readonly maxSeqLen: number,
  ) {}

  /** Sequences in a batch; undefined before the first rows. */
  get batchSize(): number | undefined {
    return this.#buffer?.shape[0];
  }

  /**
   * Adds rows behind those held.
   *
   * @param rows - `[B, T, K, D]`
   * @returns a view of the rows that the new queries may look at, and the absolute position of its first
   */
  append(rows: Tensor): { rows: Tensor; offset: number } {
    const added = rows.shape[1]!;
    if (this.#buffer && this.#buffer.shape[0] !== rows.shape[0]) {
      throw new ShapeError(
        `[KvCache] the batch size was ${this.#buffer.shape[0]} and is now ${rows.shape[0]}; use a cache for each batch.`,
      );
    }
    this.#makeRoom(rows, added);
    const buffer = this.#buffer!;
    scope(() => copyInto(slice(buffer, 1, this.#length, this.#length + added), rows));
    this.#length += added;
    return { rows: slice(buffer, 1, 0, this.#length), offset: this.#offset };
  }

  #makeRoom(like: Tensor, added: number): void {
    if (this.#buffer && this.#length + added <= this.#buffer.shape[1]!) return;
    // A window needs its last w − 1 rows; with twice that room they move once in about w steps.
    const kept = this.window === undefined ? this.#length : Math.min(this.#length, this.window - 1);
    const most = this.window === undefined ? this.maxSeqLen : 2 * this.window;
    const room = Math.max(Math.min(most, Math.max(this.expected, 2 * kept)), kept + added);
    const [B, , K, D] = like.shape as [number, number, number, number];
    const buffer = keep(zeros([B, room, K, D], { dtype: like.dtype, device: like.device }));
    const old = this.#buffer;
    if (old) {
      scope(() => copyInto(slice(buffer, 1, 0, kept), slice(old, 1, this.#length - kept, this.#length)));
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

/**
 * What a model remembers of a sequence while it generates. A windowed layer holds a number of rows that does not grow with the sequence:
 * of a 2-simplicial layer the last w1 of (k, v) and w2 of (k2, v2).
 */
export class KvCache {
  readonly layers: readonly LayerCache[];
  readonly #maxSeqLen: number;
  #length = 0;
  /** Whether a forward pass has begun and not ended: some layers may then hold its rows and others not. */
  #unfinished = false;

  /**
   * @param options.expected - positions to make room for at once, default all that the model is prepared for; further ones take a copy of the rows
   * each time their number has doubled
   */
  constructor(config: ResolvedConfig, { expected = config.maxSeqLen }: { expected?: number } = {}) {
    if (!Number.isSafeInteger(expected) || expected <= 0) {
      throw new OptionError(`[KvCache] expected must be a positive integer; received ${expected}.`);
    }
    this.#maxSeqLen = config.maxSeqLen;
    const rows = (window: number | undefined) => new RowCache(window, expected, config.maxSeqLen);
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

  /**
   * To be called before the layers append the rows of a forward pass; `advance` ends it.
   *
   * @throws {OptionError} if that many further positions are more than the model is prepared for, or if an earlier pass failed half-way
   */
  begin(positions: number): void {
    if (this.#unfinished) {
      throw new OptionError(
        `[KvCache] an earlier forward pass failed after ${this.#length} positions, and left its rows in some of the layers. Start again with a new cache.`,
      );
    }
    if (this.#length + positions > this.#maxSeqLen) {
      throw new OptionError(
        `[KvCache] ${this.#length} positions are held and ${positions} are to follow, but the model's maxSeqLen is ${this.#maxSeqLen}.`,
      );
    }
    this.#unfinished = true;
  }

  /** Counts the positions of a forward pass, after all layers have appended theirs. */
  advance(positions: number): void {
    this.#length += positions;
    this.#unfinished = false;
  }

  dispose(): void {
    for (const layer of this.layers) for (const rows of Object.values(layer) as RowCache[]) rows.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
