/** Whether two models, or two lengths, differ on the same samples. */
import { Random, type Seed } from "@llmeff/data";
import { requireInteger } from "../require-integer.js";
import { standardError, Z95 } from "./intervals.js";
import { clusterMeans } from "./length-bins.js";
import { requireFinite, requireSameLength } from "./require.js";

export interface PairedComparisonOptions {
  /** Cluster of each pair, such as the transcript whose queries it belongs to; default each pair its own. */
  clusters?: readonly string[];
  /** Draws of the sign-flip test where its exact distribution is too large; default 20,000. */
  draws?: number;
  /** Seed of the draws; default 0. */
  seed?: Seed;
}

export interface PairedComparison {
  /** Pairs, or clusters of pairs. */
  n: number;
  /** Mean of a − b. */
  difference: number;
  /** 95 % interval, `difference ± z·sd/√n`; null for n = 1. */
  low: number | null;
  high: number | null;
  /** Two-sided probability of such a difference if the sides were exchangeable within each pair. */
  pValue: number;
  test: "mcnemar" | "sign-flip" | "sign-flip, drawn";
}

/** 2^16 sign patterns are looked at one by one. */
const MOST_EXACT = 16;

/**
 * Compares the scores of the same samples: the mean difference with its interval, and an exact test.
 *
 * For right and wrong answers McNemar's exact test (binomial over the pairs that differ), else a sign-flip permutation test of the mean difference:
 * exact up to 16 pairs that differ, above that `(1 + hits) / (1 + draws)`.
 *
 * @param a - scores of one model
 * @param b - scores of the other on the same samples, in the same order
 * @throws {OptionError} without pairs, or with lengths that differ
 */
export function pairedComparison(
  a: readonly number[],
  b: readonly number[],
  options: PairedComparisonOptions = {},
): PairedComparison {
  const { clusters, draws = 20_000, seed = 0 } = options;
  requireSameLength("pairedComparison", ["a", "b"], a, b, 1);
  if (clusters) requireSameLength("pairedComparison", ["a", "clusters"], a, clusters);
  requireFinite("pairedComparison", "a", a);
  requireFinite("pairedComparison", "b", b);
  requireInteger("pairedComparison", "draws", draws, 1);
  const differences = clusterMeans(
    a.map((score, i) => ({ score: score - b[i]!, ...(clusters && { cluster: clusters[i]! }) })),
  );
  const n = differences.length;
  const difference = differences.reduce((total, value) => total + value, 0) / n;
  const half = n > 1 ? Z95 * standardError(differences, difference) : null;
  return {
    n,
    difference,
    low: half === null ? null : difference - half,
    high: half === null ? null : difference + half,
    ...exchangeTest(differences, draws, seed),
  };
}

function exchangeTest(
  differences: readonly number[],
  draws: number,
  seed: Seed,
): Pick<PairedComparison, "pValue" | "test"> {
  const differing = differences.filter((value) => value !== 0);
  if (differing.every((value) => Math.abs(value) === 1)) {
    return { pValue: signTest(differing.filter((value) => value > 0).length, differing.length), test: "mcnemar" };
  }
  const observed = Math.abs(differing.reduce((total, value) => total + value, 0));
  // Sums of the same numbers in other orders differ in rounding; those must count as equal.
  const limit = observed - 1e-12 * differing.reduce((total, value) => total + Math.abs(value), 0);
  if (differing.length <= MOST_EXACT) {
    return { pValue: shareBeyond(differing, limit), test: "sign-flip" };
  }
  const random = new Random(seed, "sign flips");
  let hits = 0;
  for (let draw = 0; draw < draws; draw++) {
    let sum = 0;
    let bits = 0;
    for (const [i, value] of differing.entries()) {
      if (i % 32 === 0) bits = random.uint32();
      sum += (bits >>> (i % 32)) & 1 ? value : -value;
    }
    if (Math.abs(sum) >= limit) hits++;
  }
  return { pValue: (1 + hits) / (1 + draws), test: "sign-flip, drawn" };
}

/** Share of all sign patterns whose sum is at least `limit` in magnitude. */
function shareBeyond(values: readonly number[], limit: number): number {
  let beyond = 0;
  const patterns = 2 ** values.length;
  for (let pattern = 0; pattern < patterns; pattern++) {
    let sum = 0;
    for (const [i, value] of values.entries()) sum += (pattern >>> i) & 1 ? value : -value;
    if (Math.abs(sum) >= limit) beyond++;
  }
  return beyond / patterns;
}

/** Two-sided binomial probability of so uneven a split of n with equal chances, `min(1, 2·Σ_{i ≤ min(k, n−k)} C(n, i) / 2^n)`. */
function signTest(k: number, n: number): number {
  // Logarithms, as C(n, i) and 2^n overflow beyond a thousand pairs.
  let logTerm = -n * Math.LN2;
  let sum = Math.exp(logTerm);
  for (let i = 1; i <= Math.min(k, n - k); i++) {
    logTerm += Math.log((n - i + 1) / i);
    sum += Math.exp(logTerm);
  }
  return Math.min(1, 2 * sum);
}
