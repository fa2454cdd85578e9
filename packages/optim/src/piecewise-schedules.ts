/**
 * Schedules from a list of values, and those that fall by a rule: power and exponential.
 */
import { OptionError } from "@llmeff/native";
import { checkBoolean, checkKeys, checkNotNegative, checkNumber, checkPositive, requireOptions } from "./check.js";
import { checkSteps, constant, type DecayOptions, decay, join, type Schedule } from "./schedules.js";

/**
 * `values[i]` from step `boundaries[i − 1]` on.
 *
 * @example
 * const learningRate = piecewiseConstant([0.1, 0.01, 0.001], [100, 150]);
 */
export function piecewiseConstant(values: readonly number[], boundaries: readonly number[]): Schedule {
  return join(values.map(constant), boundaries);
}

/**
 * Straight lines between points `[step, value]`; the first value before them and the last one after.
 *
 * @throws {OptionError} unless there is a point, and the steps rise
 *
 * @example
 * const learningRate = piecewiseLinear([[0, 0], [100, 1e-3], [1000, 1e-3], [1200, 0]]);
 */
export function piecewiseLinear(points: readonly (readonly [step: number, value: number])[]): Schedule {
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined) {
    throw new OptionError("[piecewiseLinear] expected at least one point [step, value]; received none.");
  }
  for (const [i, [step, value]] of points.entries()) {
    checkSteps("piecewiseLinear", `points[${i}][0]`, step, i === 0 ? 0 : points[i - 1]![0] + 1);
    checkNotNegative("piecewiseLinear", `points[${i}][1]`, value);
  }
  return (step) => {
    if (step <= first[0]) return first[1];
    const end = points.findIndex(([at]) => step <= at);
    if (end < 0) return last[1];
    const [[x0, y0], [x1, y1]] = [points[end - 1]!, points[end]!];
    // Weighted by both ends, so that the points themselves are met exactly.
    return (y0 * (x1 - step) + y1 * (step - x0)) / (x1 - x0);
  };
}

export interface PolynomialOptions extends DecayOptions {
  /** Default 1, a straight line; positive. */
  power?: number;
}

/** Linear warm-up, then `(1 − x)^power` from the peak to `minRatio · peak` at `totalSteps`, `x` the share of the steps after the warm-up. */
export function polynomial(peak: number, totalSteps: number, options: PolynomialOptions = {}): Schedule {
  requireOptions("polynomial", options);
  const { power = 1, ...rest } = options;
  checkPositive("polynomial", "power", power);
  return decay("polynomial", peak, totalSteps, rest, (x) => (1 - x) ** power);
}

export interface ExponentialOptions {
  /** Steps in which it falls by the whole `rate`; default 1. */
  decaySteps?: number;
  /** `true`: falls only at the multiples of `decaySteps` (PyTorch's `StepLR`). Default `false`. */
  staircase?: boolean;
  /** Steps of linear warm-up to `peak`; the decay counts from their end. Default 0. */
  warmupSteps?: number;
  /** Never below `minRatio · peak`. Default 0. */
  minRatio?: number;
}

/**
 * `peak · rate^(t / decaySteps)`, t the steps after the warm-up (optax's `exponential_decay`, PyTorch's `ExponentialLR`).
 *
 * @param rate - in (0, 1]
 */
export function exponential(peak: number, rate: number, options: ExponentialOptions = {}): Schedule {
  const where = "exponential";
  checkKeys(where, options, ["decaySteps", "staircase", "warmupSteps", "minRatio"]);
  const { decaySteps = 1, staircase = false, warmupSteps = 0, minRatio = 0 } = options;
  checkNotNegative(where, "peak", peak);
  checkNumber(where, "rate", rate, "a number in (0, 1]", (x) => x > 0 && x <= 1);
  checkSteps(where, "decaySteps", decaySteps, 1);
  checkSteps(where, "warmupSteps", warmupSteps, 0);
  checkBoolean(where, "staircase", staircase);
  checkNumber(where, "minRatio", minRatio, "a number in [0, 1]", (x) => x >= 0 && x <= 1);
  return (step) => {
    if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps;
    const periods = (step - warmupSteps) / decaySteps;
    return peak * Math.max(minRatio, rate ** (staircase ? Math.floor(periods) : periods));
  };
}
