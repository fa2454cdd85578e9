/** Means with 95 % confidence intervals. */
import { OptionError } from "@llmeff/native/errors";
import { requireFinite } from "./require.js";

/** 97.5 % quantile of the standard normal distribution. */
export const Z95 = 1.959963984540054;

export interface MeanInterval {
  /** Values that went into it. */
  n: number;
  /** Null without values. */
  mean: number | null;
  /** Ends of the interval; null where there are too few values for one. */
  low: number | null;
  high: number | null;
}

/**
 * Wilson's score interval of a share k / n (Wilson 1927):
 * `(k/n + z²/2n ± z·√(k/n·(1 − k/n)/n + z²/4n²)) / (1 + z²/n)`; `[0, 1]` for n = 0.
 *
 * @throws {OptionError} unless `0 ≤ successes ≤ n`
 */
export function wilsonInterval(successes: number, n: number): [low: number, high: number] {
  if (!(successes >= 0 && successes <= n && Number.isFinite(n))) {
    throw new OptionError(`[wilsonInterval] needs 0 ≤ successes ≤ n; received ${successes} of ${n}.`);
  }
  if (n === 0) return [0, 1];
  const share = successes / n;
  const z2 = Z95 * Z95;
  const centre = share + z2 / (2 * n);
  const half = Z95 * Math.sqrt((share * (1 - share)) / n + z2 / (4 * n * n));
  const scale = 1 + z2 / n;
  // At the ends of the scale the bounds are 0 and 1, up to rounding.
  return [successes === 0 ? 0 : (centre - half) / scale, successes === n ? 1 : (centre + half) / scale];
}

/** `mean ± z·sd/√n` with the sample's standard deviation, clipped to [0, 1]; no interval for less than two scores. */
export function normalInterval(scores: readonly number[]): MeanInterval {
  requireFinite("normalInterval", "scores", scores);
  const n = scores.length;
  if (n === 0) return { n, mean: null, low: null, high: null };
  const mean = scores.reduce((total, score) => total + score, 0) / n;
  if (n === 1) return { n, mean, low: null, high: null };
  const half = Z95 * standardError(scores, mean);
  return { n, mean, low: Math.max(0, mean - half), high: Math.min(1, mean + half) };
}

/** `sd / √n`, with `n − 1` in the standard deviation. */
export function standardError(values: readonly number[], mean: number): number {
  const squares = values.reduce((total, value) => total + (value - mean) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1) / values.length);
}

/**
 * Mean of scores in [0, 1] with Wilson's interval if all are 0 or 1, else the normal one.
 *
 * @example
 * meanInterval([1, 1, 0, 1]); // { n: 4, mean: 0.75, low: 0.30…, high: 0.95… }
 */
export function meanInterval(scores: readonly number[]): MeanInterval {
  if (scores.length === 0 || !scores.every(isBinary)) return normalInterval(scores);
  const n = scores.length;
  const successes = scores.reduce((total, score) => total + score, 0);
  const [low, high] = wilsonInterval(successes, n);
  return { n, mean: successes / n, low, high };
}

export function isBinary(score: number): boolean {
  return score === 0 || score === 1;
}
