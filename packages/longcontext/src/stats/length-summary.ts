/** Numbers that sum up scores by length. */
import { OptionError } from "@llmeff/native/errors";
import { requireFinite, requirePositive } from "./require.js";

/** Mean score at one tested length. */
export interface LengthScore {
  /** Tokens; lengths must ascend. */
  length: number;
  score: number;
}

export interface RulerAverages {
  mean: number;
  /** Weights 1 … m over the m ascending lengths. */
  increasing: number;
  /** Weights m … 1. */
  decreasing: number;
}

/** RULER's averages over the lengths (arXiv:2404.06654): the plain one and the two weighted ones. */
export function rulerAverages(scores: readonly number[]): RulerAverages {
  if (scores.length === 0) throw new OptionError("[rulerAverages] needs at least one score; received none.");
  requireFinite("rulerAverages", "scores", scores);
  const m = scores.length;
  const weighted = (weight: (i: number) => number): number => {
    let total = 0;
    let weights = 0;
    for (const [i, score] of scores.entries()) {
      total += weight(i) * score;
      weights += weight(i);
    }
    return total / weights;
  };
  return { mean: weighted(() => 1), increasing: weighted((i) => i + 1), decreasing: weighted((i) => m - i) };
}

/** RULER's threshold in per cent: Llama-2-7B at 4K tokens. */
export const RULER_THRESHOLD = 85.6;

/**
 * The longest tested length such that it and all shorter ones score at least `threshold`; null if the shortest doesn't.
 *
 * Some rows of RULER's own table state a longer one: they forgive a length below the threshold. `rule: "any"` gives the longest length that reaches
 * the threshold, whatever is before it.
 *
 * @param threshold - on the scale of the scores; RULER's is 85.6 of 100, NoLiMa's 0.85 times the score at up to 1K tokens
 */
export function effectiveLength(
  points: readonly LengthScore[],
  threshold: number,
  options: { rule?: "prefix" | "any" } = {},
): number | null {
  requireAscending("effectiveLength", points);
  requireFinite("effectiveLength", "threshold", [threshold]);
  let longest: number | null = null;
  for (const { length, score } of points) {
    if (score >= threshold) longest = length;
    else if (options.rule !== "any") break;
  }
  return longest;
}

/** Area under the scores over log2(length) by the trapezoid rule, divided by the span, so a constant score is its own area. */
export function areaUnderCurve(points: readonly LengthScore[]): number {
  requireAscending("areaUnderCurve", points);
  if (points.length < 2) {
    throw new OptionError(`[areaUnderCurve] needs at least two lengths; received ${points.length}.`);
  }
  let area = 0;
  for (let i = 1; i < points.length; i++) {
    area += ((points[i]!.score + points[i - 1]!.score) / 2) * doublings(points[i - 1]!, points[i]!);
  }
  return area / doublings(points[0]!, points.at(-1)!);
}

export interface Degradation {
  /** Score at the shortest length. */
  shortest: number;
  /** That score minus the one at 32,768 tokens (between two lengths: by a line over log2); null if the lengths don't span it. */
  dropTo32K: number | null;
  /** Least-squares slope of the score over log2(length) from 32,768 tokens on; null for less than two lengths there. */
  slopePerDoubling: number | null;
}

const KNEE = 32_768;

/** How the score falls with length. */
export function degradation(points: readonly LengthScore[]): Degradation {
  requireAscending("degradation", points);
  if (points.length === 0) throw new OptionError("[degradation] needs at least one length; received none.");
  const shortest = points[0]!.score;
  const atKnee = scoreAt(points, KNEE);
  return {
    shortest,
    dropTo32K: atKnee === null ? null : shortest - atKnee,
    slopePerDoubling: slope(points.filter(({ length }) => length >= KNEE)),
  };
}

/**
 * The first length at which the better of two models changes, between two common lengths by a line over log2(length); null if it never does. Lengths
 * of equal scores lead from one side to the other, they aren't sides themselves.
 */
export function crossOver(a: readonly LengthScore[], b: readonly LengthScore[]): number | null {
  requireAscending("crossOver", a);
  requireAscending("crossOver", b);
  const scoreOfB = new Map(b.map(({ length, score }) => [length, score]));
  const ahead = a.flatMap(({ length, score }) => {
    const other = scoreOfB.get(length);
    return other === undefined || other === score ? [] : [{ length, score: score - other }];
  });
  for (let i = 1; i < ahead.length; i++) {
    const before = ahead[i - 1]!;
    const after = ahead[i]!;
    if (Math.sign(before.score) === Math.sign(after.score)) continue;
    const share = before.score / (before.score - after.score);
    return before.length * 2 ** (share * doublings(before, after));
  }
  return null;
}

function doublings(from: LengthScore, to: LengthScore): number {
  return Math.log2(to.length / from.length);
}

function scoreAt(points: readonly LengthScore[], length: number): number | null {
  const next = points.findIndex((point) => point.length >= length);
  if (next < 0) return null;
  const after = points[next]!;
  if (after.length === length) return after.score;
  const before = points[next - 1];
  if (!before) return null;
  const share = doublings(before, { length, score: 0 }) / doublings(before, after);
  return before.score + share * (after.score - before.score);
}

function slope(points: readonly LengthScore[]): number | null {
  if (points.length < 2) return null;
  const x = points.map(({ length }) => Math.log2(length));
  const meanX = x.reduce((total, value) => total + value, 0) / x.length;
  let covariance = 0;
  let variance = 0;
  for (const [i, { score }] of points.entries()) {
    covariance += (x[i]! - meanX) * score;
    variance += (x[i]! - meanX) ** 2;
  }
  return covariance / variance;
}

function requireAscending(where: string, points: readonly LengthScore[]): void {
  requirePositive(
    where,
    "length",
    points.map(({ length }) => length),
  );
  requireFinite(
    where,
    "score",
    points.map(({ score }) => score),
  );
  const falling = points.findIndex(({ length }, i) => i > 0 && length <= points[i - 1]!.length);
  if (falling >= 0) {
    throw new OptionError(
      `[${where}] lengths must ascend; received ${points[falling]!.length} after ${points[falling - 1]!.length}.`,
    );
  }
}
