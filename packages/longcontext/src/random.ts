/**
 * Streams of random numbers of a sample: one for every (seed, task, index, purpose), so that what one purpose draws never moves what
 * another sees. That is what makes samples of different lengths share their relevant items.
 */
import { Random } from "@llmeff/data";

export function streamFor(seed: number, task: string, index: number, purpose: string): Random {
  return new Random(seed, `longcontext/${task}/${purpose}`, index);
}

/** One of the items, each equally likely. */
export function pick<Item>(random: Random, items: readonly Item[]): Item {
  return items[random.integer(0, items.length)]!;
}

/** `count` different items in random order. */
export function pickSome<Item>(random: Random, items: readonly Item[], count: number): Item[] {
  return Array.from(random.permutation(items.length).subarray(0, count), (i) => items[i]!);
}

/** True with the given probability. */
export function chance(random: Random, probability: number): boolean {
  return random.uniform() < probability;
}
