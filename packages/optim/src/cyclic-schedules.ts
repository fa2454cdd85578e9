/**
 * Schedules that rise again: cosine with restarts, and one cycle.
 */
import { checkKeys, checkNotNegative, checkNumber, checkOneOf } from "./check.js";
import { checkSteps, type DecayOptions, decayShapes, type Schedule } from "./schedules.js";

export interface CosineRestartsOptions extends DecayOptions {
  /** Each period is so many times as long as the one before; an integer of at least 1, default 1. */
  periodFactor?: number;
  /** Each period begins at so many times the peak of the one before; in (0, 1], default 1. */
  peakFactor?: number;
}

/**
 * Half cosine waves from the peak to `minRatio · peak`, one after the other (SGDR: Loshchilov & Hutter 2017, arXiv:1608.03983): in step t of a period of T steps
 * `floor + (top − floor) · (1 + cos(π t / T)) / 2`, with `top = peak · peakFactorⁱ` in the i-th period.
 *
 * @param period - steps of the first period, after the warm-up
 *
 * @example
 * const learningRate = cosineRestarts(1e-3, 100, { periodFactor: 2 }); // restarts at 100, 300, 700, …
 */
export function cosineRestarts(peak: number, period: number, options: CosineRestartsOptions = {}): Schedule {
  const where = "cosineRestarts";
  checkKeys(where, options, ["warmupSteps", "minRatio", "periodFactor", "peakFactor"]);
  const { warmupSteps = 0, minRatio = 0, periodFactor = 1, peakFactor = 1 } = options;
  checkNotNegative(where, "peak", peak);
  checkSteps(where, "period", period, 1);
  checkSteps(where, "warmupSteps", warmupSteps, 0);
  checkSteps(where, "periodFactor", periodFactor, 1);
  checkNumber(where, "minRatio", minRatio, "a number in [0, 1]", (x) => x >= 0 && x <= 1);
  checkNumber(where, "peakFactor", peakFactor, "a number in (0, 1]", (x) => x > 0 && x <= 1);
  return (step) => {
    if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps;
    let [start, length, index] = [warmupSteps, period, 0];
    if (periodFactor === 1) {
      index = Math.floor((step - start) / length);
      start += index * length;
    }
    for (; step >= start + length; index++) {
      start += length;
      length *= periodFactor;
    }
    const floor = peak * minRatio;
    const top = Math.max(floor, peak * peakFactor ** index);
    return floor + (top - floor) * decayShapes.cosine((step - start) / length);
  };
}

export interface OneCycleOptions {
  /** Share of the steps until the peak, in (0, 1); default 0.3. */
  warmupFraction?: number;
  /** The first step uses `peak / startDivisor`; at least 1, default 25. */
  startDivisor?: number;
  /** The last step uses `peak / startDivisor / endDivisor`; at least 1, default 1e4. */
  endDivisor?: number;
  /** Form of both parts; default `"cosine"`. */
  shape?: "cosine" | "linear";
}

/**
 * One cycle (Smith & Topin 2018, arXiv:1708.07120), as PyTorch's `OneCycleLR`: from `peak / startDivisor` at step 0 up to `peak` at step `warmupFraction · totalSteps − 1`, and down
 * to `peak / startDivisor / endDivisor` at step `totalSteps − 1`, where it stays.
 *
 * @throws {OptionError} if `warmupFraction · totalSteps` leaves less than one step before the peak or after it
 */
export function oneCycle(peak: number, totalSteps: number, options: OneCycleOptions = {}): Schedule {
  const where = "oneCycle";
  checkKeys(where, options, ["warmupFraction", "startDivisor", "endDivisor", "shape"]);
  const { warmupFraction = 0.3, startDivisor = 25, endDivisor = 1e4, shape = "cosine" } = options;
  checkNotNegative(where, "peak", peak);
  checkSteps(where, "totalSteps", totalSteps, 1);
  checkNumber(where, "warmupFraction", warmupFraction, "a number in (0, 1)", (x) => x > 0 && x < 1);
  for (const [name, value] of Object.entries({ startDivisor, endDivisor })) {
    checkNumber(where, name, value, "a number of at least 1", (x) => x >= 1 && Number.isFinite(x));
  }
  checkOneOf(where, "shape", shape, ["cosine", "linear"]);
  const top = warmupFraction * totalSteps - 1;
  checkNumber(where, "warmupFraction · totalSteps", top + 1, `between 1 and ${totalSteps}`, () => top > 0);
  const fall = decayShapes[shape];
  const [start, end] = [peak / startDivisor, peak / startDivisor / endDivisor];
  return (step) => {
    if (step <= top) return peak + (start - peak) * fall(step / top);
    return end + (peak - end) * fall(Math.min(1, (step - top) / (totalSteps - 1 - top)));
  };
}
