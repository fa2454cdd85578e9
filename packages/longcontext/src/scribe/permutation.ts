/** A pseudo-random order of `0 .. size - 1` that needs no table: keys and values that must differ are drawn without remembering them. */
import type { Random } from "@llmeff/data";
import { OptionError } from "@llmeff/native/errors";

const ROUNDS = 4;

/** Murmur3's finaliser: every bit of the input moves every bit of the result. */
function scramble(value: number, key: number): number {
  let h = (value ^ key) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/**
 * A bijection of `0 .. size - 1`: a balanced Feistel network on the next even power of two, walked until it falls inside the range
 * (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
 *
 * @param size - at most 2^32
 */
export class Permutation {
  readonly size: number;
  readonly #keys: readonly number[];
  readonly #halfBits: number;
  readonly #mask: number;

  constructor(size: number, random: Random) {
    if (!Number.isSafeInteger(size) || size < 1 || size > 2 ** 32) {
      throw new OptionError(`[Permutation] size must be an integer in 1..2^32; received ${size}.`);
    }
    this.size = size;
    this.#halfBits = Math.max(1, Math.ceil(Math.log2(size) / 2));
    this.#mask = 2 ** this.#halfBits - 1;
    this.#keys = Array.from({ length: ROUNDS }, () => random.uint32());
  }

  /** Where `i` goes; `i` counts modulo the size. */
  at(i: number): number {
    let x = i % this.size;
    do x = this.#network(x);
    while (x >= this.size);
    return x;
  }

  #network(x: number): number {
    const base = this.#mask + 1;
    let left = Math.floor(x / base);
    let right = x % base;
    for (const key of this.#keys) {
      const next = (left ^ scramble(right, key)) & this.#mask;
      left = right;
      right = next;
    }
    // The mask has at most 16 bits, so the product stays exact.
    return left * base + right;
  }
}
