/** Scores by length in bins of powers of two. */
import type { ScoredLength } from "./cumulative.js";
import { type MeanInterval, meanInterval } from "./intervals.js";
import { requirePositive } from "./require.js";

export interface LengthBin extends MeanInterval {
  /** The bin is `(low, high]`, in tokens. */
  tokens: [low: number, high: number];
  /** Samples; `n` counts the clusters that the interval is taken over. */
  samples: number;
}

/** The power of two `2^k` with `2^(k−1) < tokens ≤ 2^k`. */
export function powerOfTwoAbove(tokens: number): number {
  const power = 2 ** Math.ceil(Math.log2(tokens));
  // The logarithm of a number next to a power of two may round to a whole number.
  return power < tokens ? 2 * power : power / 2 >= tokens ? power / 2 : power;
}

/**
 * Mean score and 95 % interval of each bin that has samples, ascending. Samples that share a cluster, such as the queries of one transcript, count
 * as one score, their mean. Weights are of no account within a bin.
 */
export function lengthBins(samples: readonly ScoredLength[]): LengthBin[] {
  requirePositive(
    "lengthBins",
    "tokens",
    samples.map(({ tokens }) => tokens),
  );
  const bins = new Map<number, ScoredLength[]>();
  for (const sample of samples) {
    const high = powerOfTwoAbove(sample.tokens);
    const members = bins.get(high);
    if (members) members.push(sample);
    else bins.set(high, [sample]);
  }
  return [...bins]
    .sort(([x], [y]) => x - y)
    .map(([high, members]) => ({
      tokens: [high / 2, high],
      samples: members.length,
      ...meanInterval(clusterMeans(members)),
    }));
}

/** The mean score of each cluster; a sample without one is a cluster of its own. */
export function clusterMeans(samples: readonly Pick<ScoredLength, "score" | "cluster">[]): number[] {
  const clusters = new Map<string | number, number[]>();
  for (const [i, { score, cluster }] of samples.entries()) {
    const scores = clusters.get(cluster ?? i);
    if (scores) scores.push(score);
    else clusters.set(cluster ?? i, [score]);
  }
  return [...clusters.values()].map((scores) => scores.reduce((total, score) => total + score, 0) / scores.length);
}
