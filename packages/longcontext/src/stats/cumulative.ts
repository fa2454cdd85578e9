/** The curves of the Michelangelo paper: the mean score of all samples up to a length, against that length. */

import { requireInteger } from "../require-integer.js";
import { isBinary, wilsonInterval, Z95 } from "./intervals.js";
import { requireFinite, requirePositive } from "./require.js";

export interface ScoredLength {
  /** Tokens of the prompt. */
  tokens: number;
  /** 0 to 1. */
  score: number;
  /** Weight in the mean, such as `stackWeight` gives; default 1. */
  weight?: number;
  /** Samples of one cluster, such as the queries of one transcript, aren't independent. */
  cluster?: string;
}

export interface CurvePoint {
  tokens: number;
  /** Weighted mean of the scores of all samples of at most `tokens`. */
  mean: number;
  /** How many these are. */
  n: number;
  /** 95 % interval; null for a single cluster, unless Wilson's can be told. */
  low: number | null;
  high: number | null;
}

/**
 * One point at each length that occurs, ascending: `mean(x) = Σ_{tokens ≤ x} w·s / Σ w`.
 *
 * The interval is Wilson's for scores of 0 and 1 with equal weights and no cluster of several samples; else normal with the variance
 * `C/(C−1) · Σ_c (Σ_{i∈c} w·(s − mean))² / (Σ w)²` over the C clusters, which is `sd²/n` for single samples of equal weight.
 *
 * @throws {NonFiniteError | OptionError} if a length or weight isn't positive, or a score is no number
 */
export function cumulativeCurve(samples: readonly ScoredLength[]): CurvePoint[] {
  requirePositive(
    "cumulativeCurve",
    "tokens",
    samples.map(({ tokens }) => tokens),
  );
  requirePositive(
    "cumulativeCurve",
    "weight",
    samples.map(({ weight = 1 }) => weight),
  );
  requireFinite(
    "cumulativeCurve",
    "score",
    samples.map(({ score }) => score),
  );
  const sums = new RunningMean();
  const sorted = [...samples].sort((x, y) => x.tokens - y.tokens);
  const curve: CurvePoint[] = [];
  for (const [i, sample] of sorted.entries()) {
    sums.add(sample);
    if (sorted[i + 1]?.tokens !== sample.tokens) curve.push({ tokens: sample.tokens, ...sums.point() });
  }
  return curve;
}

/** Weighted mean and its clustered variance, in constant time a sample. */
class RunningMean {
  #n = 0;
  #weight = 0;
  #score = 0;
  #firstWeight: number | undefined;
  #simple = true;
  /** Of each cluster: Σ w and Σ w·s. */
  readonly #clusters = new Map<string | number, { weight: number; score: number }>();
  /** Over the clusters: Σ W², Σ W·S, Σ S². */
  #ww = 0;
  #ws = 0;
  #ss = 0;

  add({ score, weight = 1, cluster }: ScoredLength): void {
    this.#firstWeight ??= weight;
    const key = cluster ?? this.#n;
    const sums = this.#clusters.get(key) ?? { weight: 0, score: 0 };
    this.#simple &&= isBinary(score) && weight === this.#firstWeight && sums.weight === 0;
    this.#count(sums, -1);
    sums.weight += weight;
    sums.score += weight * score;
    this.#count(sums, 1);
    this.#clusters.set(key, sums);
    this.#n++;
    this.#weight += weight;
    this.#score += weight * score;
  }

  #count({ weight, score }: { weight: number; score: number }, sign: number): void {
    this.#ww += sign * weight * weight;
    this.#ws += sign * weight * score;
    this.#ss += sign * score * score;
  }

  point(): Omit<CurvePoint, "tokens"> {
    const n = this.#n;
    const mean = this.#score / this.#weight;
    if (this.#simple) {
      const [low, high] = wilsonInterval(Math.min(n, mean * n), n);
      return { mean, n, low, high };
    }
    const clusters = this.#clusters.size;
    if (clusters < 2) return { mean, n, low: null, high: null };
    const squares = Math.max(0, this.#ss - 2 * mean * this.#ws + mean * mean * this.#ww);
    const half = (Z95 * Math.sqrt((squares * clusters) / (clusters - 1))) / this.#weight;
    return { mean, n, low: Math.max(0, mean - half), high: Math.min(1, mean + half) };
  }
}

/** At most `most` points of a curve for drawing: the last one in each of as many equal steps of log2(tokens), and the first. */
export function decimateCurve<P extends { tokens: number }>(curve: readonly P[], most = 400): P[] {
  requireInteger("decimateCurve", "most", most, 2);
  if (curve.length <= most) return [...curve];
  const start = Math.log2(curve[0]!.tokens);
  const step = (Math.log2(curve.at(-1)!.tokens) - start) / (most - 1);
  const stepOf = (point: P): number => Math.ceil((Math.log2(point.tokens) - start) / step - 1e-9);
  return curve.filter((point, i) => i === curve.length - 1 || stepOf(point) !== stepOf(curve[i + 1]!));
}
