/** Which learning rate of a sweep is best. */
import type { Metric } from "../config/data-schema.js";
import type { SweepRun } from "./sweep-file.js";

/** The rule in words, for the file and the report. */
export const choiceRule =
  "Each arm takes, of its learning rates, the one with the best metric at the end, averaged over the seeds; where runs stop at a target, " +
  "the one that reached it with the fewest tokens, and only if none did, the best metric. A rate that diverged with any seed is out.";

interface Score {
  learningRate: number;
  /** Infinity unless every seed reached the target. */
  tokens: number;
  /** Smaller is better; Infinity for a divergence. */
  loss: number;
}

/** @returns undefined if every learning rate diverged */
export function chooseRate(runs: readonly SweepRun[], metric: Metric): number | undefined {
  const rates = [...new Set(runs.map(({ learningRate }) => learningRate))];
  const scores = rates.map((learningRate) => {
    const own = runs.filter((run) => run.learningRate === learningRate);
    return {
      learningRate,
      tokens: mean(own.map(({ tokensToTarget }) => tokensToTarget ?? Number.POSITIVE_INFINITY)),
      loss: mean(own.map(({ value }) => lossOf(value, metric))),
    };
  });
  const [best] = scores.filter(({ loss }) => Number.isFinite(loss)).sort(byTokensThenLoss);
  return best?.learningRate;
}

function lossOf(value: number | null, metric: Metric): number {
  if (value === null) return Number.POSITIVE_INFINITY;
  return metric === "accuracy" ? -value : value;
}

function byTokensThenLoss(a: Score, b: Score): number {
  return a.tokens === b.tokens ? a.loss - b.loss : a.tokens - b.tokens;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
