/** SALT's weight of the teacher by step (distillation.md §1.2). A pure function of the step: a resumed run needs nothing else to find its stage. */
import { OptionError } from "@llmeff/tensor";

/**
 * `step`: ω until `steps`, then 0. `linearDecay`: `ω · max(0, 1 − step/steps)`. `linearRatio`: ω until `steps`, then down to 0 over `rampSteps`.
 * `always`: ω in every step, plain distillation, in which a weak teacher ends up hurting.
 */
export type OmegaSchedule =
  | { kind: "step" | "linearDecay"; steps: number }
  | { kind: "linearRatio"; steps: number; rampSteps: number }
  | { kind: "always" };

/** @throws {OptionError} for an ω outside [0, 1] or a number of steps that is none */
export function checkSchedule(where: string, omega: number, schedule: OmegaSchedule): void {
  if (!(omega >= 0 && omega <= 1)) throw new OptionError(`[${where}] omega must be in [0, 1]; received ${omega}.`);
  if (!["step", "linearDecay", "linearRatio", "always"].includes(schedule?.kind)) {
    throw new OptionError(
      `[${where}] schedule.kind must be step, linearDecay, linearRatio or always; received ${JSON.stringify(schedule?.kind)}.`,
    );
  }
  const { kind, ...counts } = schedule;
  const names = { step: ["steps"], linearDecay: ["steps"], linearRatio: ["steps", "rampSteps"], always: [] }[kind];
  for (const name of names) {
    const value = (counts as Record<string, number>)[name]!;
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new OptionError(`[${where}] schedule.${name} must be a positive integer; received ${value}.`);
    }
  }
}

/**
 * The weight of the teacher at a step.
 *
 * @param step - from 0
 */
export function omegaAt(step: number, omega: number, schedule: OmegaSchedule): number {
  switch (schedule.kind) {
    case "always":
      return omega;
    case "step":
      return step < schedule.steps ? omega : 0;
    case "linearDecay":
      return omega * Math.max(0, 1 - step / schedule.steps);
    case "linearRatio":
      return step < schedule.steps ? omega : omega * Math.max(0, 1 - (step - schedule.steps) / schedule.rampSteps);
  }
}
