/**
 * A sequence of random numbers keyed by (seed, purpose, index).
 *
 * The stream of the Philox generator is `FNV-1a-64(purpose) + index`: sequences of one purpose never meet, those of
 * different purposes only if two 64-bit hashes come close. So a sample, an epoch or a client can draw its numbers
 * without knowing what anybody else drew.
 */
import { OptionError } from "@llmeff/native/errors";
import { philoxBlock, type Seed, type Words64, words64 } from "./philox.js";
import { boxMuller, uniform53 } from "./philox-fill.js";

const FNV_OFFSET = 0xcbf29ce484222325n;
const FNV_PRIME = 0x100000001b3n;
const MASK_64 = (1n << 64n) - 1n;
const TWO_32 = 2 ** 32;
const TWO_53 = 2 ** 53;

/** The Philox stream of a purpose and an index; feeds `fillUniform` here and the random functions of the engine. */
export function streamOf(purpose: string, index = 0): bigint {
  if (!Number.isSafeInteger(index) || index < 0) {
    throw new OptionError(`[streamOf] index must be an integer in 0..2^53-1; received ${index}.`);
  }
  let hash = FNV_OFFSET;
  for (const byte of new TextEncoder().encode(purpose)) {
    hash = ((hash ^ BigInt(byte)) * FNV_PRIME) & MASK_64;
  }
  return (hash + BigInt(index)) & MASK_64;
}

/** `streamOf` within 2⁵², as a number: for keys that take numbers, `{ seed, stream: streamNumberOf("dropout", step) }`. */
export function streamNumberOf(purpose: string, index = 0): number {
  return Number(streamOf(purpose, index) & ((1n << 52n) - 1n));
}

/**
 * Sequential numbers of one (seed, purpose, index). `position` counts the 32-bit words used so far; it is the whole state.
 *
 * @example
 * const random = new Random(7, "shuffle", epoch);
 * const order = random.permutation(1000);
 */
export class Random {
  /** Words used so far; assign it to go back or forth. */
  position = 0;
  readonly #seed: Words64;
  readonly #stream: Words64;
  readonly #words = new Uint32Array(4);
  #loaded = -1;

  constructor(seed: Seed, purpose: string, index = 0) {
    this.#seed = words64(seed);
    this.#stream = words64(streamOf(purpose, index), "stream");
  }

  /** The next 32 random bits. */
  uint32(): number {
    const block = Math.floor(this.position / 4);
    if (block !== this.#loaded) {
      philoxBlock(this.#seed, this.#stream, block, this.#words);
      this.#loaded = block;
    }
    return this.#words[this.position++ % 4]!;
  }

  /** Uniform in [0, 1) with 53 bits; two words. The i-th call is element i of `fillUniform` on a `Float64Array`. */
  uniform(): number {
    const a = this.uint32();
    return uniform53(a, this.uint32());
  }

  /** Standard normal; two words, so that the position stays the whole state. */
  normal(): number {
    const a = this.uint32();
    return boxMuller(a, this.uint32(), false);
  }

  /** Integer in `low .. high - 1`, each equally likely (draws beyond the last full multiple are thrown away). */
  integer(low: number, high: number): number {
    const count = high - low;
    if (!Number.isSafeInteger(low) || !Number.isSafeInteger(high) || count < 1 || !Number.isSafeInteger(count)) {
      throw new OptionError(`[Random.integer] needs safe integers low < high; received ${low} and ${high}.`);
    }
    const wide = count > TWO_32;
    const states = wide ? TWO_53 : TWO_32;
    const limit = states - (states % count);
    for (;;) {
      const bits = wide ? this.#bits53() : this.uint32();
      if (bits < limit) return low + (bits % count);
    }
  }

  /** Puts the items in random order, in place, every order equally likely (Fisher–Yates). */
  shuffle<A extends Int32Array | Uint32Array | Float32Array | Float64Array | unknown[]>(items: A): A {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.integer(0, i + 1);
      const held = items[i];
      items[i] = items[j] as never;
      items[j] = held as never;
    }
    return items;
  }

  /** The numbers `0 .. count - 1` in random order. */
  permutation(count: number): Int32Array {
    if (!Number.isInteger(count) || count < 0 || count > 0x7fffffff) {
      throw new OptionError(`[Random.permutation] count must be an integer in 0..2^31-1; received ${count}.`);
    }
    return this.shuffle(Int32Array.from({ length: count }, (_, i) => i));
  }

  #bits53(): number {
    return (this.uint32() >>> 11) * TWO_32 + this.uint32();
  }
}
