/** Selection of sequences by scores: the highest of a pool, of each shard, above a threshold, or of a band. */
import { OptionError } from "@llmeff/native/errors";
import { requireInteger } from "./batch.js";

/** Scores of −∞ mean "never": nothing could be said of the item, and no selection has it. */
const isNever = (score: number) => score === Number.NEGATIVE_INFINITY;

function requireScores(where: string, scores: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(scores);
  const bad = values.findIndex(Number.isNaN);
  if (bad >= 0) throw new OptionError(`[${where}] score ${bad} is NaN. Did the scorer diverge?`);
  return values;
}

function requireShare(where: string, name: string, value: number): void {
  if (!(value > 0 && value <= 1)) throw new OptionError(`[${where}] ${name} must be in (0, 1]; received ${value}.`);
}

/** A share of so many, rounded up; 7 of 100 at 0.07, although the product is a little above 7 in floating point. */
const countOf = (length: number, share: number) => Math.ceil(length * share * (1 - 2 ** -50));

/**
 * The numbers of the `count` highest scores, from the highest; equal scores by number. Those of −∞ mean "never" and are not selected.
 *
 * @param options.groups - what each score belongs to, such as its document, and at most `mostPerGroup` of which are selected
 *
 * @example
 * selectTop([0.5, 2, 2, Number.NEGATIVE_INFINITY], 2); // [1, 2]
 */
export function selectTop(
  scores: ArrayLike<number>,
  count: number,
  options: { groups?: ArrayLike<number | string>; mostPerGroup?: number } = {},
): number[] {
  requireInteger("selectTop", "count", count, 0);
  const values = requireScores("selectTop", scores);
  const numbers = [...values.keys()].filter((i) => !isNever(values[i]!));
  numbers.sort((a, b) => values[b]! - values[a]! || a - b);
  return withinGroups(numbers, options).slice(0, count);
}

function withinGroups(
  numbers: number[],
  { groups, mostPerGroup = 1 }: { groups?: ArrayLike<number | string>; mostPerGroup?: number },
): number[] {
  if (groups === undefined) return numbers;
  requireInteger("selectTop", "mostPerGroup", mostPerGroup, 1);
  const taken = new Map<number | string | undefined, number>();
  return numbers.filter((i) => {
    const before = taken.get(groups[i]) ?? 0;
    taken.set(groups[i], before + 1);
    return before < mostPerGroup;
  });
}

/** The highest `fraction` of each shard of `shardSize` scores, rounded up, as numbers in the whole pool, in their order there. */
export function selectPerShard(scores: ArrayLike<number>, fraction: number, shardSize: number): number[] {
  requireShare("selectPerShard", "fraction", fraction);
  requireInteger("selectPerShard", "shardSize", shardSize, 1);
  const values = requireScores("selectPerShard", scores);
  const selected: number[] = [];
  for (let start = 0; start < values.length; start += shardSize) {
    const shard = values.subarray(start, start + shardSize);
    const top = selectTop(shard, countOf(shard.length, fraction));
    selected.push(...top.map((i) => start + i).sort((a, b) => a - b));
  }
  return selected;
}

/**
 * The score from which on the highest `fraction` lies, estimated on a sample: for streams, of which every item with
 * `score >= threshold` is taken as it comes. Never below all scores but −∞, and ∞ if there are no others.
 */
export function scoreThreshold(sample: ArrayLike<number>, fraction: number): number {
  requireShare("scoreThreshold", "fraction", fraction);
  const values = requireScores("scoreThreshold", sample).sort().reverse();
  if (values.length === 0) throw new OptionError("[scoreThreshold] expected a sample of scores; received none.");
  const selectable = values.filter((score) => !isNever(score));
  const count = Math.min(countOf(values.length, fraction), selectable.length);
  return selectable[count - 1] ?? Number.POSITIVE_INFINITY;
}

/** Numbers of the scores between two quantiles of those above −∞, `low` included and `high` excluded unless it is 1, in their order. */
export function selectBand(scores: ArrayLike<number>, low: number, high: number): number[] {
  if (!(low >= 0 && low < high && high <= 1)) {
    throw new OptionError(`[selectBand] expected quantiles 0 ≤ low < high ≤ 1; received ${low} and ${high}.`);
  }
  const values = requireScores("selectBand", scores);
  const selectable = [...values.keys()].filter((i) => !isNever(values[i]!));
  const ascending = selectable.sort((a, b) => values[a]! - values[b]! || a - b);
  const at = (quantile: number) => Math.round(quantile * ascending.length);
  return ascending.slice(at(low), at(high)).sort((a, b) => a - b);
}
