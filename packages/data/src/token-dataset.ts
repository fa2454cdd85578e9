/**
 * Shuffled training windows over one long token array.
 *
 * Epoch e cuts the tokens, from a phase of its own in 0..T-1, into windows that share only their border token (the last target of
 * one is the first input of the next) and visits each exactly once in an order of its own; both depend on (seed, e) alone.
 * The place is therefore (epoch, index) and resuming costs one shuffle.
 */
import { FormatError, OptionError } from "@llmeff/native/errors";
import { type Batch, type BatchSource, type JsonObject, readState, requireInteger } from "./batch.js";
import type { Seed } from "./philox.js";
import { Random } from "./random.js";

/** Token ids; narrow types save memory for small vocabularies. */
export type TokenArray = Int32Array | Uint16Array | Uint8Array;

export interface TokenDatasetOptions {
  /** T: inputs a window; each window reads T + 1 tokens. */
  seqLen: number;
  /** B: windows a batch. */
  batchSize: number;
  /** Default 0. */
  seed?: Seed;
  /** Cut every epoch at another phase, so that window borders move; default true. With false every epoch has the same windows. */
  randomPhase?: boolean;
}

export class TokenDataset implements BatchSource {
  readonly tokens: TokenArray;
  readonly seqLen: number;
  readonly batchSize: number;
  readonly #seed: Seed;
  readonly #randomPhase: boolean;
  #epoch = 0;
  #index = 0;
  #starts: Int32Array;
  #fingerprint: string | undefined;

  /**
   * @param tokens - at least T + 1 token ids; kept, not copied
   * @throws {OptionError} if a size is not a positive integer or there are too few tokens
   */
  constructor(tokens: TokenArray, options: TokenDatasetOptions) {
    const { seqLen, batchSize, seed = 0, randomPhase = true } = options;
    this.seqLen = requireInteger("TokenDataset", "seqLen", seqLen, 1);
    this.batchSize = requireInteger("TokenDataset", "batchSize", batchSize, 1);
    requireTokens("TokenDataset", tokens, seqLen + 1);
    this.tokens = tokens;
    this.#seed = seed;
    this.#randomPhase = randomPhase;
    this.#starts = this.windowStarts(0);
  }

  /** Epoch of the next window, from 0. */
  get epoch(): number {
    return this.#epoch;
  }

  /** First-token positions of the windows of an epoch, in the order in which they are visited. */
  windowStarts(epoch: number): Int32Array {
    const { seqLen } = this;
    const usable = this.tokens.length - 1;
    const random = new Random(this.#seed, "token-dataset/epoch", epoch);
    const drawn = random.integer(0, seqLen);
    // A corpus of less than two windows keeps phase 0: otherwise an epoch could be empty.
    const phase = this.#randomPhase && usable >= 2 * seqLen ? drawn : 0;
    const starts = random.permutation(Math.floor((usable - phase) / seqLen));
    for (let i = 0; i < starts.length; i++) starts[i] = phase + starts[i]! * seqLen;
    return starts;
  }

  /** The next B windows as they stand in the text, `[B, T + 1]`; a batch may reach over the end of an epoch. */
  nextWindows(): Int32Array {
    return windowsFrom(this.tokens, this.#nextStarts(), this.seqLen);
  }

  /** The next B windows, inputs and targets apart, with their places as `origins`. */
  next(): Batch {
    return batchFrom(this.tokens, this.#nextStarts(), this.seqLen);
  }

  state(): JsonObject {
    return { ...this.#identity(), epoch: this.#epoch, index: this.#index };
  }

  /** @throws {FormatError} if the state belongs to other tokens, another seed or another length */
  restore(state: JsonObject): void {
    const { epoch, index } = readState("TokenDataset.restore", state, this.#identity(), ["epoch", "index"]);
    const starts = this.windowStarts(epoch);
    if (index > starts.length) {
      throw new FormatError(
        `[TokenDataset.restore] the state's index ${index} is beyond the ${starts.length} windows of epoch ${epoch}. The state is damaged.`,
      );
    }
    this.#epoch = epoch;
    this.#index = index;
    this.#starts = starts;
  }

  #nextStarts(): Float64Array {
    return Float64Array.from({ length: this.batchSize }, () => this.#nextStart());
  }

  #nextStart(): number {
    if (this.#index >= this.#starts.length) {
      this.#epoch += 1;
      this.#index = 0;
      this.#starts = this.windowStarts(this.#epoch);
    }
    return this.#starts[this.#index++]!;
  }

  #identity(): JsonObject {
    this.#fingerprint ??= fingerprint(this.tokens);
    return {
      kind: "token-dataset",
      seed: String(this.#seed),
      seqLen: this.seqLen,
      randomPhase: this.#randomPhase,
      tokenCount: this.tokens.length,
      fingerprint: this.#fingerprint,
    };
  }
}

/** The windows of T + 1 tokens from each place on, `[B, T + 1]`. */
function windowsFrom(tokens: TokenArray, origins: Float64Array, seqLen: number): Int32Array {
  const width = seqLen + 1;
  const windows = new Int32Array(origins.length * width);
  for (const [b, origin] of origins.entries()) windows.set(tokens.subarray(origin, origin + width), b * width);
  return windows;
}

/** The windows from each place on as a batch. */
export function batchFrom(tokens: TokenArray, origins: Float64Array, seqLen: number): Batch {
  return { ...splitWindows(windowsFrom(tokens, origins, seqLen), origins.length, seqLen), origins };
}

/** Cuts windows `[B, T + 1]` into inputs (all but the last token) and targets (all but the first). */
export function splitWindows(windows: Int32Array, batchSize: number, seqLen: number): Batch {
  const width = seqLen + 1;
  const tokens = new Int32Array(batchSize * seqLen);
  const targets = new Int32Array(batchSize * seqLen);
  for (let b = 0; b < batchSize; b++) {
    tokens.set(windows.subarray(b * width, b * width + seqLen), b * seqLen);
    targets.set(windows.subarray(b * width + 1, (b + 1) * width), b * seqLen);
  }
  return { tokens, targets, batchSize, seqLen };
}

/**
 * Cuts a corpus in two without shuffling: the last `validFraction` is for validation.
 *
 * @returns views on the same memory, `⌊N · (1 - validFraction)⌋` tokens for training
 */
export function splitTokens<A extends TokenArray>(tokens: A, validFraction: number): { train: A; valid: A } {
  if (!(validFraction > 0 && validFraction < 1)) {
    throw new OptionError(`[splitTokens] validFraction must be between 0 and 1; received ${validFraction}.`);
  }
  const cut = Math.floor(tokens.length * (1 - validFraction));
  return { train: tokens.subarray(0, cut) as A, valid: tokens.subarray(cut) as A };
}

/** Refuses a corpus that is too short for one window. */
export function requireTokens(where: string, tokens: TokenArray, minimum: number): void {
  if (tokens.length < minimum) {
    throw new OptionError(
      `[${where}] a window needs ${minimum} tokens; the corpus has ${tokens.length}. Use a longer corpus or a shorter seqLen.`,
    );
  }
}

/** FNV-1a-32 over the ids: a state saved with one corpus is not resumed on another. */
export function fingerprint(tokens: TokenArray): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < tokens.length; i++) hash = Math.imul(hash ^ tokens[i]!, 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, "0");
}
