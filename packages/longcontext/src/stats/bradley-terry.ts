/** Strengths from side-by-side comparisons (Bradley and Terry 1952; arXiv:2403.05530 eq. 1). */
import { OptionError } from "@llmeff/native/errors";

const RELATIVE_STEP = 1e-13;
/** Newton's method needs some ten steps; what doesn't end by then is at the limit of rounding. */
const MOST_STEPS = 500;
/**
 * Where all logarithms change by less, each step is about the square of the one before. The likelihood isn't asked then: its changes drown in its
 * rounding long before the strengths have converged.
 */
const CERTAIN_STEP = 0.05;

/**
 * Strengths `s` of greatest likelihood in `P(i beats j) = s_i / (s_i + s_j)`, with geometric mean 1.
 *
 * A system without wins (or without losses) has a strength of 0 (or infinity) against all others, and so has a group of systems that never beat one
 * outside it. Strengths exist only within a set in which everyone beat everyone along some chain: the largest such set gets them, the others null.
 * Leaving the others out doesn't change the strengths within.
 *
 * @param wins - `wins[i][j]`: how often i beat j; halves for ties. The diagonal doesn't count
 * @throws {OptionError} unless square, with numbers of at least 0
 *
 * @example
 * bradleyTerry([[0, 3], [1, 0]]); // [√3, 1/√3]
 */
export function bradleyTerry(wins: readonly (readonly number[])[]): (number | null)[] {
  requireWins(wins);
  const members = largestConnected(wins);
  const strengths = new Array<number | null>(wins.length).fill(null);
  if (members.length < 2) return strengths;
  const logs = maximise(members.map((i) => members.map((j) => (i === j ? 0 : wins[i]![j]!))));
  const mean = logs.reduce((total, value) => total + value, 0) / logs.length;
  for (const [k, i] of members.entries()) strengths[i] = Math.exp(logs[k]! - mean);
  return strengths;
}

/** Probability that a system of strength `a` beats one of strength `b`. */
export function winProbability(a: number, b: number): number {
  if (!(a > 0 && b > 0)) throw new OptionError(`[winProbability] strengths must be positive; received ${a} and ${b}.`);
  // Of a quotient, as the sum may overflow.
  return 1 / (1 + b / a);
}

function requireWins(wins: readonly (readonly number[])[]): void {
  for (const [i, row] of wins.entries()) {
    const wrong = row.findIndex((count) => !(count >= 0 && Number.isFinite(count)));
    if (row.length !== wins.length || wrong >= 0) {
      throw new OptionError(
        `[bradleyTerry] wins must be a square table of numbers of at least 0; received ` +
          (wrong >= 0 ? `${row[wrong]} at [${i}][${wrong}].` : `${row.length} columns in row ${i} of ${wins.length}.`),
      );
    }
  }
}

/** The largest set of systems of which each reaches each by wins; the first one of several. */
function largestConnected(wins: readonly (readonly number[])[]): number[] {
  const beats = wins.map((_, i) => reachedFrom(i, wins));
  let best: number[] = [];
  for (const [i, reached] of beats.entries()) {
    const set = beats.flatMap((back, j) => (j === i || (reached[j] && back[i]) ? [j] : []));
    if (set.length > best.length) best = set;
  }
  return best;
}

function reachedFrom(start: number, wins: readonly (readonly number[])[]): boolean[] {
  const reached = wins.map(() => false);
  const waiting = [start];
  for (let from = waiting.pop(); from !== undefined; from = waiting.pop()) {
    for (const [to, count] of wins[from]!.entries()) {
      if (reached[to] || from === to || count === 0) continue;
      reached[to] = true;
      waiting.push(to);
    }
  }
  return reached;
}

/**
 * Logarithms of the strengths, the first one 0. The likelihood is concave in them, so Newton's method with halved steps finds its maximum; the usual
 * iteration of Zermelo has the same one, but takes millions of steps to it where two groups met seldom.
 */
function maximise(wins: readonly (readonly number[])[]): number[] {
  let logs = wins.map(() => 0);
  for (let step = 0; step < MOST_STEPS; step++) {
    const direction = newtonStep(wins, logs);
    const size = Math.max(...direction.map(Math.abs));
    logs = size < CERTAIN_STEP ? move(logs, direction, 1) : searchAlong(wins, logs, direction, Math.min(1, 3 / size));
    if (size <= RELATIVE_STEP) break;
  }
  return logs;
}

/** The first of the halved steps that doesn't lower the likelihood. */
function searchAlong(
  wins: readonly (readonly number[])[],
  logs: readonly number[],
  direction: readonly number[],
  longest: number,
): number[] {
  const likelihood = logLikelihood(wins, logs);
  for (let share = longest; share > Number.EPSILON; share /= 2) {
    const next = move(logs, direction, share);
    if (logLikelihood(wins, next) >= likelihood) return next;
  }
  return [...logs];
}

function move(logs: readonly number[], direction: readonly number[], share: number): number[] {
  return logs.map((value, i) => value + share * direction[i]!);
}

/** `P(i beats j)` of logarithms. */
function probability(logs: readonly number[], i: number, j: number): number {
  return 1 / (1 + Math.exp(logs[j]! - logs[i]!));
}

function logLikelihood(wins: readonly (readonly number[])[], logs: readonly number[]): number {
  let total = 0;
  for (const [i, row] of wins.entries()) {
    for (const [j, count] of row.entries()) {
      if (count > 0) total -= count * softplus(logs[j]! - logs[i]!);
    }
  }
  return total;
}

/** `ln(1 + eˣ)` that neither overflows nor loses a small `eˣ`. */
function softplus(x: number): number {
  return Math.max(0, x) + Math.log1p(Math.exp(-Math.abs(x)));
}

/**
 * Solves `H·d = g` by Cholesky, with the first strength held: g is the gradient `Σ_j (wins_ij − n_ij·p_ij)`, and H, minus the Hessian, has
 * `−n_ij·p_ij·p_ji` off its diagonal and rows that sum to 0, so without the first row and column it is positive definite.
 */
function newtonStep(wins: readonly (readonly number[])[], logs: readonly number[]): number[] {
  const m = wins.length;
  const hessian = Array.from({ length: m }, () => new Float64Array(m));
  const gradient = new Float64Array(m);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < m; j++) {
      if (i === j) continue;
      const games = wins[i]![j]! + wins[j]![i]!;
      const p = probability(logs, i, j);
      const q = probability(logs, j, i);
      // wins − games·p without the difference of two large numbers.
      gradient[i]! += wins[i]![j]! * q - wins[j]![i]! * p;
      hessian[i]![j] = -games * p * q;
      hessian[i]![i]! += games * p * q;
    }
  }
  return [
    0,
    ...solveCholesky(
      hessian.slice(1).map((row) => row.subarray(1)),
      gradient.subarray(1),
    ),
  ];
}

function solveCholesky(matrix: Float64Array[], right: Float64Array): Float64Array {
  const n = right.length;
  const x = Float64Array.from(right);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = matrix[i]![j]!;
      for (let k = 0; k < j; k++) sum -= matrix[i]![k]! * matrix[j]![k]!;
      // Rounding may leave a pivot at 0 or below where a system is all but cut off; a tiny one makes the step long, and it is halved then.
      matrix[i]![j] =
        i === j ? Math.sqrt(Math.max(sum, Number.EPSILON * matrix[i]![i]!, Number.MIN_VALUE)) : sum / matrix[j]![j]!;
    }
  }
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) x[i]! -= matrix[i]![k]! * x[k]!;
    x[i]! /= matrix[i]![i]!;
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) x[i]! -= matrix[k]![i]! * x[k]!;
    x[i]! /= matrix[i]![i]!;
  }
  return x;
}
