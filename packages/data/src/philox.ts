/**
 * Philox 4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
 *
 * A block of four 32-bit words is a pure function of a 64-bit key and a 128-bit counter. Here the key is the seed and the
 * counter is `(block number, stream)`, so any element of any stream can be computed alone, in any order, on any device.
 * The native engine computes the same words from the same numbers.
 */
import { OptionError } from "@llmeff/native/errors";

/** A seed or stream number: an integer in `0 .. 2^53 - 1`, or a bigint in `0 .. 2^64 - 1`. */
export type Seed = number | bigint;

/** The two halves of a 64-bit unsigned integer. */
export interface Words64 {
  readonly low: number;
  readonly high: number;
}

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;
const TWO_32 = 2 ** 32;

/** High 32 bits of `a · b`, from four 16-bit products; every intermediate stays below 2^32. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const carry = aHigh * bLow + ((aLow * bLow) >>> 16);
  const middle = aLow * bHigh + (carry & 0xffff);
  return (aHigh * bHigh + (carry >>> 16) + (middle >>> 16)) >>> 0;
}

/** Splits a seed, stream or block number into 32-bit halves. */
export function words64(value: Seed, name = "seed"): Words64 {
  if (typeof value === "bigint") {
    if (value < 0n || value >= 1n << 64n) {
      throw new OptionError(`[philox] ${name} must be in 0..2^64-1; received ${value}n.`);
    }
    return { low: Number(value & 0xffffffffn), high: Number(value >> 32n) };
  }
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new OptionError(
      `[philox] ${name} must be an integer in 0..2^53-1; received ${value}. Larger numbers can be given as a bigint.`,
    );
  }
  return { low: value >>> 0, high: Math.floor(value / TWO_32) };
}

/**
 * The bare function: ten rounds on counter `c0..c3` under key `k0, k1`.
 *
 * @param out - receives four words
 */
export function philox4x32(
  c0: number,
  c1: number,
  c2: number,
  c3: number,
  k0: number,
  k1: number,
  out: Uint32Array,
): void {
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(c0, MULTIPLIER_0);
    const low0 = Math.imul(c0, MULTIPLIER_0);
    const high1 = multiplyHigh(c2, MULTIPLIER_1);
    const low1 = Math.imul(c2, MULTIPLIER_1);
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1 >>> 0;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0 >>> 0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/**
 * One block of a stream: `out[0..3] = philox(counter = (block, stream), key = seed)`.
 *
 * @param block - number of the block, an integer in `0 .. 2^53 - 1`
 */
export function philoxBlock(seed: Words64, stream: Words64, block: number, out: Uint32Array): void {
  philox4x32(block >>> 0, Math.floor(block / TWO_32), stream.low, stream.high, seed.low, seed.high, out);
}
