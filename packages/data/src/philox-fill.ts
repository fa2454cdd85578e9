/**
 * Arrays of random numbers by element index: element `i` of `(seed, stream)` has the same value whoever computes it,
 * in whatever order and however the array is cut into pieces.
 */
import { OptionError } from "@llmeff/native/errors";
import { philoxBlock, type Seed, words64 } from "./philox.js";

export interface PhiloxFillOptions {
  seed: Seed;
  /** Independent sequence of the same seed; default 0. */
  stream?: Seed;
  /** Index of the first element; default 0. */
  offset?: number;
}

/**
 * Fills `out` with uniform numbers in [0, 1).
 *
 * float32: element `i` is word `i mod 4` of block `⌊i/4⌋`, `(w >>> 8) · 2^-24`.
 * float64: element `i` takes words `a, b = 2(i mod 2), 2(i mod 2)+1` of block `⌊i/2⌋`, `((a >>> 5)·2^26 + (b >>> 6)) · 2^-53`.
 */
export function fillUniform<A extends Float32Array | Float64Array>(out: A, options: PhiloxFillOptions): A {
  if (out instanceof Float64Array) {
    fillByBlock(out, options, 2, (words, lane) => uniform53(words[2 * lane]!, words[2 * lane + 1]!));
  } else {
    fillByBlock(out, options, 4, (words, lane) => (words[lane]! >>> 8) * 2 ** -24);
  }
  return out;
}

/**
 * Fills `out` with standard normal numbers (Box–Muller in float64, rounded to the array's type).
 *
 * Elements `2p, 2p+1` of a block of four come from words `2p, 2p+1`: `u = (w + 1/2) · 2^-32`,
 * `sqrt(-2 ln u1) · cos(2π u2)` and `… · sin(2π u2)`.
 */
export function fillNormal<A extends Float32Array | Float64Array>(out: A, options: PhiloxFillOptions): A {
  fillByBlock(out, options, 4, (words, lane) => {
    const pair = lane & 2;
    return boxMuller(words[pair]!, words[pair + 1]!, lane % 2 === 1);
  });
  return out;
}

/** Uniform in [0, 1) with 53 random bits. */
export function uniform53(a: number, b: number): number {
  return ((a >>> 5) * 2 ** 26 + (b >>> 6)) * 2 ** -53;
}

/** One of the two normal numbers made of a pair of words; the half added keeps the logarithm finite. */
export function boxMuller(a: number, b: number, second: boolean): number {
  const radius = Math.sqrt(-2 * Math.log((a + 0.5) * 2 ** -32));
  const angle = 2 * Math.PI * ((b + 0.5) * 2 ** -32);
  return radius * (second ? Math.sin(angle) : Math.cos(angle));
}

function fillByBlock(
  out: Float32Array | Float64Array,
  { seed, stream = 0, offset = 0 }: PhiloxFillOptions,
  lanes: number,
  value: (words: Uint32Array, lane: number) => number,
): void {
  if (!Number.isSafeInteger(offset) || offset < 0) {
    throw new OptionError(`[philox] offset must be an integer of at least 0; received ${offset}.`);
  }
  const key = words64(seed);
  const sequence = words64(stream, "stream");
  const words = new Uint32Array(4);
  let loaded = -1;
  for (let i = 0; i < out.length; i++) {
    const block = Math.floor((offset + i) / lanes);
    if (block !== loaded) {
      philoxBlock(key, sequence, block, words);
      loaded = block;
    }
    out[i] = value(words, (offset + i) % lanes);
  }
}
