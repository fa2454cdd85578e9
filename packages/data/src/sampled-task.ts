/** What generated tasks have in common: samples by their number, drawn from streams that the splits don't share. */
import { OptionError } from "@llmeff/native/errors";
import { type Batch, type BatchSet, type BatchSource, type JsonObject, readState, requireInteger } from "./batch.js";
import { type Seed, words64 } from "./philox.js";

export const SPLITS = ["train", "valid", "test"] as const;
export type Split = (typeof SPLITS)[number];

export interface SampledTaskOptions {
  /** B: sequences a batch. */
  batchSize: number;
  /** Default `"train"`. The splits draw from streams that never meet. */
  split?: Split;
  /** Default 0. */
  seed?: Seed;
}

/** Endless batches of numbered samples. Sample `index` of (seed, split) is always the same, whatever the batch size. */
export abstract class SampledTask implements BatchSource {
  readonly batchSize: number;
  readonly split: Split;
  /** T */
  abstract readonly seqLen: number;
  abstract readonly vocabSize: number;
  protected readonly seed: Seed;
  readonly #name: string;
  #index = 0;

  /** @param name - of the class, for errors */
  constructor(name: string, { batchSize, split = "train", seed = 0 }: SampledTaskOptions) {
    this.batchSize = requireInteger(name, "batchSize", batchSize, 1);
    this.split = requireOneOf(name, "split", split, SPLITS);
    words64(seed);
    this.seed = seed;
    this.#name = name;
  }

  /** Writes samples `first .. first + count - 1`, wherever `next()` stands. */
  protected abstract write(first: number, count: number): Batch;

  /** What a sample depends on, its number apart. */
  protected abstract identity(): JsonObject;

  /** Targets that one sample has. */
  protected abstract readonly answers: number;

  next(): Batch {
    const batch = this.write(this.#index, this.batchSize);
    this.#index += this.batchSize;
    return batch;
  }

  /** Samples `first .. first + count - 1`, wherever `next()` stands. */
  samples(first: number, count: number): Batch {
    requireInteger(`${this.#name}.samples`, "first", first, 0);
    requireInteger(`${this.#name}.samples`, "count", count, 1);
    return this.write(first, count);
  }

  /** The first `count` samples of this split as a finite set, in batches of `batchSize`. */
  first(count: number): BatchSet {
    requireInteger(`${this.#name}.first`, "count", count, 1);
    const self = this;
    return {
      targetCount: count * this.answers,
      *[Symbol.iterator]() {
        for (let at = 0; at < count; at += self.batchSize) yield self.write(at, Math.min(self.batchSize, count - at));
      },
    };
  }

  state(): JsonObject {
    return { ...this.identity(), index: this.#index };
  }

  restore(state: JsonObject): void {
    this.#index = readState(`${this.#name}.restore`, state, this.identity(), ["index"]).index;
  }
}

export function requireOneOf<T extends string>(where: string, name: string, value: T, allowed: readonly T[]): T {
  if (!allowed.includes(value)) {
    throw new OptionError(
      `[${where}] ${name} must be one of ${allowed.map((a) => `"${a}"`).join(", ")}; received ${JSON.stringify(value)}.`,
    );
  }
  return value;
}
