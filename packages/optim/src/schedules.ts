/**
 * Learning-rate schedules: functions from the 0-based step to a value. The first step of a warm-up uses `peak / warmupSteps`, not 0.
 */
import { OptionError } from "@llmeff/native";
import { checkKeys, checkNotNegative, checkNumber, requireOptions } from "./check.js";

/** A value for each 0-based step. */
export type Schedule = (step: number) => number;
export type ScalarOrSchedule = number | Schedule;

export interface DecayOptions {
  /** Steps of linear warm-up: step t of them uses `peak · (t + 1) / warmupSteps`. Default 0. */
  warmupSteps?: number;
  /** The schedule ends at `minRatio · peak` and stays there. Default 0. */
  minRatio?: number;
}

export interface WsdOptions extends DecayOptions {
  /** Share of all steps that the final decay takes. Default 0.1. */
  decayFraction?: number;
  /** Form of the decay. Default `"linear"`. */
  decayShape?: keyof typeof decayShapes;
}

/** From 1 at x = 0 to 0 at x = 1. @internal */
export const decayShapes = {
  linear: (x: number) => 1 - x,
  cosine: (x: number) => (1 + Math.cos(Math.PI * x)) / 2,
  sqrt: (x: number) => 1 - Math.sqrt(x),
} as const satisfies Record<string, (x: number) => number>;

/** A number as a schedule that never changes; a schedule as it is. */
export function asSchedule(value: ScalarOrSchedule): Schedule {
  return typeof value === "function" ? value : constant(value);
}

/** `value` at every step. */
export function constant(value: number): Schedule {
  checkNotNegative("constant", "value", value);
  return () => value;
}

/**
 * Linear warm-up in front of a schedule: `schedule(t) · (t + 1) / warmupSteps` while `t < warmupSteps`, then `schedule(t)`.
 *
 * @example
 * const learningRate = warmup(3e-4, 100);
 */
export function warmup(schedule: ScalarOrSchedule, warmupSteps: number): Schedule {
  checkSteps("warmup", "warmupSteps", warmupSteps, 0);
  const after = asSchedule(schedule);
  return (step) => (step < warmupSteps ? (after(step) * (step + 1)) / warmupSteps : after(step));
}

/** Linear warm-up, then a straight line to `minRatio · peak` at `totalSteps`. */
export function linear(peak: number, totalSteps: number, options: DecayOptions = {}): Schedule {
  return decay("linear", peak, totalSteps, options, decayShapes.linear);
}

/**
 * Linear warm-up, then half a cosine wave to `minRatio · peak` at `totalSteps` (Loshchilov & Hutter 2017, without restarts).
 *
 * @example
 * const learningRate = cosine(3e-4, 1000, { warmupSteps: 50, minRatio: 0.1 });
 */
export function cosine(peak: number, totalSteps: number, options: DecayOptions = {}): Schedule {
  return decay("cosine", peak, totalSteps, options, decayShapes.cosine);
}

/** Warm-up, stable, decay: linear warm-up, `peak`, and from step `totalSteps · (1 − decayFraction)` on a fall to `minRatio · peak`. */
export function wsd(peak: number, totalSteps: number, options: WsdOptions = {}): Schedule {
  requireOptions("wsd", options);
  const { decayFraction = 0.1, decayShape = "linear", ...rest } = options;
  checkNumber("wsd", "decayFraction", decayFraction, "a number in (0, 1]", (x) => x > 0 && x <= 1);
  if (!Object.hasOwn(decayShapes, decayShape)) {
    throw new OptionError(
      `[wsd] decayShape must be one of ${Object.keys(decayShapes).join(", ")}; received ${String(decayShape)}.`,
    );
  }
  return decay("wsd", peak, totalSteps, rest, decayShapes[decayShape], totalSteps * (1 - decayFraction));
}

/** Linear warm-up, then `peak · √(max(warmupSteps, 1) / (step + 1))`; has no end. */
export function inverseSqrt(peak: number, warmupSteps = 0): Schedule {
  checkNotNegative("inverseSqrt", "peak", peak);
  checkSteps("inverseSqrt", "warmupSteps", warmupSteps, 0);
  return (step) =>
    step < warmupSteps ? (peak * (step + 1)) / warmupSteps : peak * Math.sqrt(Math.max(warmupSteps, 1) / (step + 1));
}

/**
 * Schedules one after the other: `schedules[i]` from step `boundaries[i − 1]` on, each counting its own steps from 0.
 *
 * @example
 * const learningRate = join([cosine(1e-3, 500), constant(1e-5)], [500]);
 */
export function join(schedules: readonly ScalarOrSchedule[], boundaries: readonly number[]): Schedule {
  if (schedules.length !== boundaries.length + 1) {
    throw new OptionError(
      `[join] ${schedules.length} schedules need ${schedules.length - 1} boundaries; received ${boundaries.length}.`,
    );
  }
  for (const [i, boundary] of boundaries.entries()) {
    checkSteps("join", `boundaries[${i}]`, boundary, (boundaries[i - 1] ?? 0) + 1);
  }
  const parts = schedules.map(asSchedule);
  return (step) => {
    let part = 0;
    while (part < boundaries.length && step >= boundaries[part]!) part++;
    return parts[part]!(step - (boundaries[part - 1] ?? 0));
  };
}

/** `shape` stretched over the steps from `decayStart` to `totalSteps`, 1 before and 0 after, between `peak` and `minRatio · peak`. @internal */
export function decay(
  where: string,
  peak: number,
  totalSteps: number,
  options: DecayOptions,
  shape: (x: number) => number,
  decayStart?: number,
): Schedule {
  checkKeys(where, options, ["warmupSteps", "minRatio", ...(where === "wsd" ? ["decayFraction", "decayShape"] : [])]);
  const { warmupSteps = 0, minRatio = 0 } = options;
  checkNotNegative(where, "peak", peak);
  checkSteps(where, "totalSteps", totalSteps, 1);
  checkSteps(where, "warmupSteps", warmupSteps, 0);
  checkNumber(where, "minRatio", minRatio, "a number in [0, 1]", (x) => x >= 0 && x <= 1);
  if (warmupSteps > totalSteps) {
    throw new OptionError(`[${where}] warmupSteps (${warmupSteps}) must not exceed totalSteps (${totalSteps}).`);
  }
  const start = decayStart ?? warmupSteps;
  return (step) => {
    if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps;
    const x = totalSteps > start ? Math.min(1, Math.max(0, (step - start) / (totalSteps - start))) : 1;
    return peak * (minRatio + (1 - minRatio) * shape(x));
  };
}

/** @internal */
export function checkSteps(where: string, name: string, value: unknown, least: number): void {
  checkNumber(where, name, value, `an integer of at least ${least}`, (x) => Number.isSafeInteger(x) && x >= least);
}
