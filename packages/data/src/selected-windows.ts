/** Training windows that somebody selected, by their places in the text. */
import { FormatError, OptionError } from "@llmeff/native/errors";
import { type Batch, type BatchSource, type JsonObject, readState, requireInteger } from "./batch.js";
import type { Seed } from "./philox.js";
import { type ShuffledOrder, shuffledOrder } from "./shuffled-order.js";
import { batchFrom, fingerprint, type TokenArray } from "./token-dataset.js";

export interface WindowsAtOptions {
  /** T */
  seqLen: number;
  /** B; the last batch of `windowsAt` may have fewer rows. */
  batchSize: number;
}

/** The windows of `seqLen + 1` tokens from each place on, once and in this order: candidates to score. */
export function windowsAt(tokens: TokenArray, starts: ArrayLike<number>, options: WindowsAtOptions): Iterable<Batch> {
  const places = requirePlaces("windowsAt", tokens, starts, options);
  return {
    *[Symbol.iterator]() {
      for (let first = 0; first < places.length; first += options.batchSize) {
        yield batchFrom(tokens, places.subarray(first, first + options.batchSize), options.seqLen);
      }
    },
  };
}

/** Endless batches of the windows from some places on, each once an epoch in an order that (seed, epoch) decides. */
export class SelectedWindows implements BatchSource {
  readonly seqLen: number;
  readonly batchSize: number;
  readonly #tokens: TokenArray;
  readonly #places: Float64Array;
  readonly #seed: Seed;
  readonly #identity: JsonObject;
  #epoch = 0;
  #index = 0;
  #order: ShuffledOrder;

  /** @throws {OptionError} without places, or for one whose window isn't in the text */
  constructor(tokens: TokenArray, starts: ArrayLike<number>, options: WindowsAtOptions & { seed?: Seed }) {
    this.#places = requirePlaces("SelectedWindows", tokens, starts, options);
    if (this.#places.length === 0)
      throw new OptionError("[SelectedWindows] expected places of windows; received none.");
    this.#tokens = tokens;
    this.seqLen = options.seqLen;
    this.batchSize = options.batchSize;
    this.#seed = options.seed ?? 0;
    const selection = fingerprint(Int32Array.from(this.#places));
    this.#identity = {
      kind: "selected-windows",
      seed: String(this.#seed),
      seqLen: this.seqLen,
      fingerprint: fingerprint(tokens),
      selection: `${this.#places.length} ${selection}`,
    };
    this.#order = this.#orderOf(0);
  }

  next(): Batch {
    const places = Float64Array.from({ length: this.batchSize }, () => this.#nextPlace());
    return batchFrom(this.#tokens, places, this.seqLen);
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

function requirePlaces(
  where: string,
  tokens: TokenArray,
  starts: ArrayLike<number>,
  { seqLen, batchSize }: WindowsAtOptions,
): Float64Array {
  requireInteger(where, "seqLen", seqLen, 1);
  requireInteger(where, "batchSize", batchSize, 1);
  const places = Float64Array.from(starts);
  const wrong = places.find((place) => !Number.isInteger(place) || place < 0 || place + seqLen >= tokens.length);
  if (wrong === undefined) return places;
  throw new OptionError(
    `[${where}] a window of ${seqLen + 1} tokens must begin in 0..${tokens.length - seqLen - 1}; received ${wrong}.`,
  );
}
