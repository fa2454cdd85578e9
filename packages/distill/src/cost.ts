/** What a teacher costs, by counts of operations (distillation.md §1.6). */
import { OptionError } from "@llmeff/tensor";

export interface SaltRun {
  /** N_L: parameters of the student. */
  studentParameters: number;
  /** N_S: parameters of the teacher. */
  teacherParameters: number;
  /** n: steps of plain training that it is compared with. */
  baselineSteps: number;
  /** n': steps after which the run was stopped, such as where it reached the baseline's quality. */
  steps: number;
  /** n_KD: steps with a teacher. */
  teacherSteps: number;
  /** The teacher's predictions are on disk already; default false. */
  cached?: boolean;
}

export interface SaltCost {
  /** Operations of a step with a teacher over those of a plain one: `1 + N_S / (3 N_L)`. */
  stepFactor: number;
  /** Operations of the run over those of the baseline: `(n' + n_KD · N_S / (3 N_L)) / n`. */
  relative: number;
  /** `1 − relative` */
  saved: number;
}

/**
 * Operations of a run with a teacher relative to plain training: a plain step takes 6 N_L for each token, the teacher's forward pass 2 N_S more.
 * Training the teacher isn't counted: it is there already.
 *
 * @example
 * saltCost({ studentParameters: 2.8e9, teacherParameters: 1.5e9, baselineSteps: 208e3, steps: 146e3, teacherSteps: 36e3 }).saved; // 0.267
 */
export function saltCost(run: SaltRun): SaltCost {
  const { studentParameters, teacherParameters, baselineSteps, steps, teacherSteps, cached = false } = run;
  for (const [name, value] of Object.entries({ studentParameters, baselineSteps })) {
    if (!(value > 0 && Number.isFinite(value)))
      throw new OptionError(`[saltCost] ${name} must be above 0; received ${value}.`);
  }
  for (const [name, value] of Object.entries({ teacherParameters, steps, teacherSteps })) {
    if (!(value >= 0 && Number.isFinite(value)))
      throw new OptionError(`[saltCost] ${name} must be at least 0; received ${value}.`);
  }
  const extra = cached ? 0 : teacherParameters / (3 * studentParameters);
  const relative = (steps + Math.min(teacherSteps, steps) * extra) / baselineSteps;
  return { stepFactor: 1 + extra, relative, saved: 1 - relative };
}

/** Operations and seconds of a run beside the baseline's, as one line for a report. */
export function describeCost(run: SaltRun, seconds?: { run: number; baseline: number }): string {
  const { relative, saved } = saltCost(run);
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const time = (value: number) => `${value.toFixed(value < 99.95 ? 1 : 0)} s`;
  const measured = seconds
    ? ` Measured: ${time(seconds.run)} against ${time(seconds.baseline)}, ${percent(1 - seconds.run / seconds.baseline)} saved.`
    : "";
  return `By operations ${relative.toFixed(3)} of the baseline, ${percent(saved)} saved; training the teacher is not counted.${measured}`;
}
