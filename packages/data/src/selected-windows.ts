/** Training windows that somebody selected, by their places in the text. */
import { FormatError, OptionError } from "@llmeff/native/errors";
import { type Batch, type BatchSource, type JsonObject, readState, requireInteger } from "./batch.js";
import type { Seed } from "./philox.js";
import { shardBatch } from "./shard-windows.js";
import { type ShuffledOrder, shuffledOrder } from "./shuffled-order.js";
import { batchFrom, fingerprint, type TokenArray } from "./token-dataset.js";
import { TokenShards } from "./token-shards.js";

export interface WindowsAtOptions {
  /** T */
  seqLen: number;
  /** B; the last batch of `windowsAt` may have fewer rows. */
  batchSize: number;
}

/** What windows are cut from: tokens in memory, or on a disk. */
export type WindowedText = TokenArray | TokenShards;

/** A batch, which has to be waited for where its tokens are on a disk. */
export type BatchOf<Text extends WindowedText> = Text extends TokenShards ? Promise<Batch> : Batch;

/** The windows of `seqLen + 1` tokens from each place on, once and in this order: candidates to score. */
export function windowsAt(text: TokenArray, starts: ArrayLike<number>, options: WindowsAtOptions): Iterable<Batch>;
export function windowsAt(
  text: TokenShards,
  starts: ArrayLike<number>,
  options: WindowsAtOptions,
): AsyncIterable<Batch>;
export function windowsAt(
  text: WindowedText,
  starts: ArrayLike<number>,
  options: WindowsAtOptions,
): Iterable<Batch> | AsyncIterable<Batch> {
  const { seqLen, batchSize } = options;
  const places = requirePlaces("windowsAt", text, starts, options);
  const count = Math.ceil(places.length / batchSize);
  const origins = (batch: number) => places.subarray(batch * batchSize, (batch + 1) * batchSize);
  if (!(text instanceof TokenShards)) {
    return {
      *[Symbol.iterator]() {
        for (let i = 0; i < count; i++) yield batchFrom(text, origins(i), seqLen);
      },
    };
  }
  return {
    async *[Symbol.asyncIterator]() {
      for (let i = 0; i < count; i++) yield shardBatch(text, origins(i), seqLen);
    },
  };
}

/** Endless batches of the windows from some places on, each once an epoch in an order that (seed, epoch) decides. */
export class SelectedWindows<Text extends WindowedText = TokenArray> implements BatchSource {
  readonly seqLen: number;
  readonly batchSize: number;
  readonly #text: Text;
  readonly #places: Float64Array;
  readonly #seed: Seed;
  readonly #identity: JsonObject;
  #epoch = 0;
  #index = 0;
  #order: ShuffledOrder;

  /** @throws {OptionError} without places, or for one whose window isn't in the text */
  constructor(text: Text, starts: ArrayLike<number>, options: WindowsAtOptions & { seed?: Seed }) {
    this.#places = requirePlaces("SelectedWindows", text, starts, options);
    if (this.#places.length === 0)
      throw new OptionError("[SelectedWindows] expected places of windows; received none.");
    this.#text = text;
    this.seqLen = options.seqLen;
    this.batchSize = options.batchSize;
    this.#seed = options.seed ?? 0;
    this.#identity = {
      kind: "selected-windows",
      seed: String(this.#seed),
      seqLen: this.seqLen,
      fingerprint: text instanceof TokenShards ? text.fingerprint : fingerprint(text as TokenArray),
      selection: `${this.#places.length} ${fingerprint(halvesOf(this.#places))}`,
    };
    this.#order = this.#orderOf(0);
  }

  next(): BatchOf<Text> {
    const places = Float64Array.from({ length: this.batchSize }, () => this.#nextPlace());
    const text: WindowedText = this.#text;
    const batch =
      text instanceof TokenShards ? shardBatch(text, places, this.seqLen) : batchFrom(text, places, this.seqLen);
    return batch as BatchOf<Text>;
  }

  state(): JsonObject {
    return { ...this.#identity, epoch: this.#epoch, index: this.#index };
  }

  restore(state: JsonObject): void {
    const { epoch, index } = readState("SelectedWindows.restore", state, this.#identity, ["epoch", "index"]);
    if (index > this.#places.length) {
      throw new FormatError(
        `[SelectedWindows.restore] the state's index ${index} is beyond the ${this.#places.length} windows. The state is damaged.`,
      );
    }
    this.#epoch = epoch;
    this.#index = index;
    this.#order = this.#orderOf(epoch);
  }

  #nextPlace(): number {
    if (this.#index === this.#places.length) {
      this.#epoch += 1;
      this.#index = 0;
      this.#order = this.#orderOf(this.#epoch);
    }
    return this.#places[this.#order.at(this.#index++)]!;
  }

  #orderOf(epoch: number): ShuffledOrder {
    return shuffledOrder(this.#places.length, this.#seed, "selected-windows/epoch", epoch);
  }
}

/** Places as 32-bit numbers, of which those on a disk need two. */
function halvesOf(places: Float64Array): Int32Array {
  return Int32Array.from({ length: 2 * places.length }, (_, i) => {
    const place = places[i >> 1]!;
    return i % 2 === 0 ? place % 2 ** 32 : place / 2 ** 32;
  });
}

function requirePlaces(
  where: string,
  text: WindowedText,
  starts: ArrayLike<number>,
  { seqLen, batchSize }: WindowsAtOptions,
): Float64Array {
  requireInteger(where, "seqLen", seqLen, 1);
  requireInteger(where, "batchSize", batchSize, 1);
  const places = Float64Array.from(starts);
  const tokenCount = text instanceof TokenShards ? text.tokenCount : text.length;
  const wrong = places.find((place) => !Number.isInteger(place) || place < 0 || place + seqLen >= tokenCount);
  if (wrong === undefined) return places;
  throw new OptionError(
    `[${where}] a window of ${seqLen + 1} tokens must begin in 0..${tokenCount - seqLen - 1}; received ${wrong}.`,
  );
}
