/**
 * The numbers 0..n−1 in an order that (seed, purpose, index) decides, of which any place can be asked for alone.
 *
 * Up to 2²⁰ numbers the order is a permutation drawn uniformly and held in memory. Beyond, it is a Feistel network over pairs of halves
 * (M. Luby, C. Rackoff, SIAM J. Comput. 17, 1988) whose round function is Philox, walked until it stays below n (J. Black, P. Rogaway,
 * "Ciphers with arbitrary finite domains", CT-RSA 2002): no memory whatever n is, and at most four steps on average.
 */
import { OptionError } from "@llmeff/native/errors";
import { requireInteger } from "./batch.js";
import { philox4x32, type Seed, words64 } from "./philox.js";
import { Random, streamOf } from "./random.js";

const LARGEST_HELD = 2 ** 20;
const ROUNDS = 6;

export interface ShuffledOrder {
  readonly count: number;
  /** The number at a place of the order. */
  at(place: number): number;
}

/** @param count - n, up to 2^53 − 1 */
export function shuffledOrder(count: number, seed: Seed, purpose: string, index = 0): ShuffledOrder {
  requireInteger("shuffledOrder", "count", count, 0);
  const order =
    count <= LARGEST_HELD ? heldOrder(count, seed, purpose, index) : feistelOrder(count, seed, purpose, index);
  return {
    count,
    at(place) {
      if (!Number.isInteger(place) || place < 0 || place >= count) {
        throw new OptionError(`[shuffledOrder] place must be an integer in 0..${count - 1}; received ${place}.`);
      }
      return order(place);
    },
  };
}

function heldOrder(count: number, seed: Seed, purpose: string, index: number): (place: number) => number {
  const permutation = new Random(seed, purpose, index).permutation(count);
  return (place) => permutation[place]!;
}

/** The same for any `count`, computed at each call. @internal */
export function feistelOrder(count: number, seed: Seed, purpose: string, index: number): (place: number) => number {
  const key = words64(seed);
  const stream = words64(streamOf(purpose, index), "stream");
  const bits = Math.max(2, Math.ceil(Math.log2(count)));
  const half = 2 ** Math.ceil(bits / 2);
  const words = new Uint32Array(4);
  const scramble = (value: number, round: number) => {
    philox4x32(value, round, stream.low, stream.high, key.low, key.high, words);
    return words[0]! & (half - 1);
  };
  return (place) => {
    let value = place;
    do {
      let left = Math.floor(value / half);
      let right = value % half;
      for (let round = 0; round < ROUNDS; round++) [left, right] = [right, left ^ scramble(right, round)];
      value = left * half + right;
    } while (value >= count);
    return value;
  };
}
