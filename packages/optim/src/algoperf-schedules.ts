/**
 * The two schedules of the AlgoPerf baselines (arXiv:2306.07179, appendix A.1). Unlike the others here they begin at 0 and use the peak in step `W`.
 */
import { checkKeys, checkNotNegative, checkNumber } from "./check.js";
import { checkSteps, type Schedule } from "./schedules.js";

export interface AlgoperfCosineOptions {
  /** Share of all steps that the warm-up takes, in [0, 1); default 0.05. */
  warmupFactor?: number;
}

export interface AlgoperfLinearOptions extends AlgoperfCosineOptions {
  /** Share of the steps after the warm-up that the decay takes, in (0, 1]; default 0.9. */
  decayStepsFactor?: number;
  /** The end value by the peak, in [0, 1]; default 1e-3. */
  endFactor?: number;
}

/** Warm-up and cosine decay: `peak · t / W` for `t ≤ W = warmupFactor · totalSteps`, then `peak / 2 · (1 + cos(π (t − W) / (totalSteps − W)))`; 0 after the end. */
export function algoperfCosine(peak: number, totalSteps: number, options: AlgoperfCosineOptions = {}): Schedule {
  checkKeys("algoperfCosine", options, ["warmupFactor"]);
  const { warmupFactor = 0.05 } = options;
  const warmupSteps = checkWarmup("algoperfCosine", peak, totalSteps, warmupFactor);
  return (step) => {
    if (step < warmupSteps) return (peak * step) / warmupSteps;
    const x = Math.min(1, (step - warmupSteps) / (totalSteps - warmupSteps));
    return (peak / 2) * (1 + Math.cos(Math.PI * x));
  };
}

/**
 * Warm-up, linear decay, constant end: `peak · t / W` for `t ≤ W = warmupFactor · totalSteps`, a straight line from there to `end = peak · endFactor` at
 * `D = W + decayStepsFactor · (totalSteps − W)`, then `end`.
 */
export function algoperfLinear(peak: number, totalSteps: number, options: AlgoperfLinearOptions = {}): Schedule {
  const where = "algoperfLinear";
  checkKeys(where, options, ["warmupFactor", "decayStepsFactor", "endFactor"]);
  const { warmupFactor = 0.05, decayStepsFactor = 0.9, endFactor = 1e-3 } = options;
  const warmupSteps = checkWarmup(where, peak, totalSteps, warmupFactor);
  checkNumber(where, "decayStepsFactor", decayStepsFactor, "a number in (0, 1]", (x) => x > 0 && x <= 1);
  checkNumber(where, "endFactor", endFactor, "a number in [0, 1]", (x) => x >= 0 && x <= 1);
  const decaySteps = decayStepsFactor * (totalSteps - warmupSteps);
  return (step) => {
    if (step < warmupSteps) return (peak * step) / warmupSteps;
    const x = Math.min(1, (step - warmupSteps) / decaySteps);
    return peak * (1 - x + endFactor * x);
  };
}

/** Steps of the warm-up, which may be a fraction. */
function checkWarmup(where: string, peak: number, totalSteps: number, warmupFactor: number): number {
  checkNotNegative(where, "peak", peak);
  checkSteps(where, "totalSteps", totalSteps, 1);
  checkNumber(where, "warmupFactor", warmupFactor, "a number in [0, 1)", (x) => x >= 0 && x < 1);
  return warmupFactor * totalSteps;
}
