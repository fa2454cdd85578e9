/** The power law that falling NLL follows with position, `L(x) = α·x^β + γ` (arXiv:2403.05530 §5.2.1.1). */
import { OptionError } from "@llmeff/native/errors";
import { requireFinite, requirePositive, requireSameLength } from "./require.js";

export interface PowerLawFit {
  alpha: number;
  /** In [−4, −0.005]. */
  beta: number;
  gamma: number;
  /** Sum of squared residuals. */
  sse: number;
  /** `1 − SSE/SST`; null if all y are equal. */
  r2: number | null;
  /** The first x whose residual is more than 3 · 1.4826 times the median of all in magnitude: there the law ends; null if there is none. */
  deviatesAt: number | null;
  /** β is at the end of its range, α isn't positive, or there are less than four points: the numbers mean little. */
  degenerate: boolean;
}

const STEEPEST = -4;
const FLATTEST = -0.005;
const GRID = 400;
const GOLDEN_RATIO = (Math.sqrt(5) - 1) / 2;

interface LinearFit {
  /** α for x in units of its geometric mean. */
  scale: number;
  gamma: number;
  sse: number;
  residuals: number[];
}

/**
 * Least squares by variable projection: for each β, α and γ follow from a linear fit with x divided by its geometric mean (so that x^β neither
 * overflows nor vanishes), and β is found on a grid and then by golden section.
 *
 * @param x - positions, positive, at least two different ones
 * @param y - mean NLL at each
 * @throws {OptionError | NonFiniteError} for less than two points, x that aren't positive or are all equal, y that aren't numbers
 *
 * @example
 * fitPowerLaw([128, 256, 512, 1024], [3.5, 3.25, 3.125, 3.0625]).beta; // -1
 */
export function fitPowerLaw(x: readonly number[], y: readonly number[]): PowerLawFit {
  requireSameLength("fitPowerLaw", ["x", "y"], x, y, 2);
  requirePositive("fitPowerLaw", "x", x);
  requireFinite("fitPowerLaw", "y", y);
  if (x.every((value) => value === x[0])) {
    throw new OptionError(`[fitPowerLaw] x must have at least two different values; received only ${x[0]}.`);
  }
  const logs = x.map(Math.log);
  const logMean = mean(logs);
  const centred = logs.map((value) => value - logMean);
  const fitAt = (beta: number): LinearFit => linearFit(centred, y, beta);
  const beta = minimise((candidate) => fitAt(candidate).sse);
  const { scale, gamma, sse, residuals } = fitAt(beta);
  const alpha = scale * Math.exp(-beta * logMean);
  const meanY = mean(y);
  const sst = y.reduce((total, value) => total + (value - meanY) ** 2, 0);
  const r2 = sst > 0 ? 1 - sse / sst : null;
  const atBound = beta - STEEPEST < 1e-6 || FLATTEST - beta < 1e-6;
  return {
    alpha,
    beta,
    gamma,
    sse,
    r2,
    deviatesAt: firstDeviation(x, residuals, r2),
    degenerate: atBound || !(alpha > 0) || x.length < 4,
  };
}

/** Fits `y ≈ scale·z + γ` with `z = e^{β·(ln x − mean ln x)}`. */
function linearFit(centred: readonly number[], y: readonly number[], beta: number): LinearFit {
  const z = centred.map((value) => Math.exp(beta * value));
  const meanZ = mean(z);
  const meanY = mean(y);
  let zz = 0;
  let zy = 0;
  for (const [i, value] of z.entries()) {
    zz += (value - meanZ) ** 2;
    zy += (value - meanZ) * (y[i]! - meanY);
  }
  // Positions may be different and yet too near for their powers to be: then the best law is a constant.
  const scale = zz > 0 ? zy / zz : 0;
  const gamma = meanY - scale * meanZ;
  // From the centred values, since for a flat law scale·z and γ are large and cancel.
  const residuals = z.map((value, i) => y[i]! - meanY - scale * (value - meanZ));
  return { scale, gamma, residuals, sse: residuals.reduce((total, residual) => total + residual * residual, 0) };
}

/** β of the least error: the best point of a grid, then golden section between its neighbours. */
function minimise(error: (beta: number) => number): number {
  const grid = Array.from({ length: GRID }, (_, i) => STEEPEST + ((FLATTEST - STEEPEST) * i) / (GRID - 1));
  const errors = grid.map(error);
  const best = errors.indexOf(Math.min(...errors));
  let low = grid[Math.max(0, best - 1)]!;
  let high = grid[Math.min(GRID - 1, best + 1)]!;
  let left = high - GOLDEN_RATIO * (high - low);
  let right = low + GOLDEN_RATIO * (high - low);
  let errorLeft = error(left);
  let errorRight = error(right);
  while (high - low > 1e-14) {
    if (errorLeft <= errorRight) {
      high = right;
      right = left;
      errorRight = errorLeft;
      left = high - GOLDEN_RATIO * (high - low);
      errorLeft = error(left);
    } else {
      low = left;
      left = right;
      errorLeft = errorRight;
      right = low + GOLDEN_RATIO * (high - low);
      errorRight = error(right);
    }
  }
  return (low + high) / 2;
}

/** Among few points no residual can be three of their own standard deviations away, so the median measures the spread. */
function firstDeviation(x: readonly number[], residuals: readonly number[], r2: number | null): number | null {
  if (r2 === null || r2 > 1 - 1e-9) return null;
  const sizes = residuals.map(Math.abs).sort((a, b) => a - b);
  const middle = sizes.length / 2;
  const median = (sizes[Math.ceil(middle) - 1]! + sizes[Math.floor(middle)]!) / 2;
  // 1.4826 · median is the standard deviation of normal residuals.
  const limit = 3 * 1.4826 * median;
  const ascending = x.map((value, i) => [value, Math.abs(residuals[i]!)] as const).sort(([a], [b]) => a - b);
  return ascending.find(([, size]) => size > limit)?.[0] ?? null;
}

function mean(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0) / values.length;
}
