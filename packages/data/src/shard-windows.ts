/** Shuffled training windows over token shards on disk: what `TokenDataset` does over an array. */
import { FormatError, OptionError } from "@llmeff/native/errors";
import { type Batch, type BatchSource, type JsonObject, readState, requireInteger } from "./batch.js";
import type { Seed } from "./philox.js";
import { Random } from "./random.js";
import { type ShuffledOrder, shuffledOrder } from "./shuffled-order.js";
import { splitWindows, type TokenDatasetOptions } from "./token-dataset.js";
import type { TokenShards } from "./token-shards.js";

/** The windows of T + 1 tokens from each place on as a batch. */
export async function shardBatch(shards: TokenShards, origins: Float64Array, seqLen: number): Promise<Batch> {
  const width = seqLen + 1;
  const windows = new Int32Array(origins.length * width);
  const read = async (start: number, b: number) => windows.set(await shards.read(start, width), b * width);
  await Promise.all(Array.from(origins, read));
  return { ...splitWindows(windows, origins.length, seqLen), origins };
}

/**
 * Endless shuffled windows of a stream of tokens, each of which an epoch visits once. The order isn't held in memory beyond a million windows,
 * ids are read when their batch is made, and resuming costs nothing: put `prefetch` around it to read ahead.
 *
 * @example
 * const data = prefetch(new ShardWindows(shards, { seqLen: 1024, batchSize: 8, seed: 1 }), { depth: 4 });
 */
export class ShardWindows implements BatchSource {
  readonly seqLen: number;
  readonly batchSize: number;
  readonly #shards: TokenShards;
  readonly #seed: Seed;
  readonly #randomPhase: boolean;
  #epoch = 0;
  #index = 0;
  #current: { epoch: number; phase: number; order: ShuffledOrder } | undefined;

  /** @throws {OptionError} if a size is not a positive integer or there are fewer tokens than a window needs */
  constructor(shards: TokenShards, options: TokenDatasetOptions) {
    const { seqLen, batchSize, seed = 0, randomPhase = true } = options;
    this.seqLen = requireInteger("ShardWindows", "seqLen", seqLen, 1);
    this.batchSize = requireInteger("ShardWindows", "batchSize", batchSize, 1);
    if (shards.tokenCount < seqLen + 1) {
      throw new OptionError(
        `[ShardWindows] a window needs ${seqLen + 1} tokens; the shards have ${shards.tokenCount}. Use a shorter seqLen.`,
      );
    }
    this.#shards = shards;
    this.#seed = seed;
    this.#randomPhase = randomPhase;
  }

  next(): Promise<Batch> {
    const origins = Float64Array.from({ length: this.batchSize }, () => this.#nextStart());
    return shardBatch(this.#shards, origins, this.seqLen);
  }

  /** First-token positions of the windows of an epoch, in the order in which they are visited: candidates for a selection. */
  windowStarts(epoch: number): Float64Array {
    const { phase, order } = this.#windowsOf(epoch);
    return Float64Array.from({ length: order.count }, (_, place) => phase + order.at(place) * this.seqLen);
  }

  state(): JsonObject {
    return { ...this.#identity(), epoch: this.#epoch, index: this.#index };
  }

  /** @throws {FormatError} if the state belongs to other shards, another seed or another length */
  restore(state: JsonObject): void {
    const { epoch, index } = readState("ShardWindows.restore", state, this.#identity(), ["epoch", "index"]);
    const { count } = this.#windows(epoch).order;
    if (index > count) {
      throw new FormatError(
        `[ShardWindows.restore] the state's index ${index} is beyond the ${count} windows of epoch ${epoch}. The state is damaged.`,
      );
    }
    this.#epoch = epoch;
    this.#index = index;
  }

  #nextStart(): number {
    if (this.#index >= this.#windows(this.#epoch).order.count) {
      this.#epoch += 1;
      this.#index = 0;
    }
    const { phase, order } = this.#windows(this.#epoch);
    return phase + order.at(this.#index++) * this.seqLen;
  }

  /** The windows of an epoch, from a phase of its own, and their order. */
  #windows(epoch: number): { phase: number; order: ShuffledOrder } {
    if (this.#current?.epoch !== epoch) this.#current = { epoch, ...this.#windowsOf(epoch) };
    return this.#current;
  }

  #windowsOf(epoch: number): { phase: number; order: ShuffledOrder } {
    const usable = this.#shards.tokenCount - 1;
    const drawn = new Random(this.#seed, "shard-windows/phase", epoch).integer(0, this.seqLen);
    // As in TokenDataset: with less than two windows an epoch could be empty.
    const phase = this.#randomPhase && usable >= 2 * this.seqLen ? drawn : 0;
    const count = Math.floor((usable - phase) / this.seqLen);
    return { phase, order: shuffledOrder(count, this.#seed, "shard-windows/epoch", epoch) };
  }

  #identity(): JsonObject {
    return {
      kind: "shard-windows",
      seed: String(this.#seed),
      seqLen: this.seqLen,
      randomPhase: this.#randomPhase,
      tokenCount: this.#shards.tokenCount,
      fingerprint: this.#shards.fingerprint,
    };
  }
}
