/** What the runs of an arm, one a seed, say together. */
import { type Interval, type Series, studentInterval } from "@llmeff/report";
import type { TrainingConfig } from "../config/training-schema.js";
import type { Arm } from "./load-study.js";
import type { Curve, SeedRun } from "./outcome.js";

export interface ArmResult {
  name: string;
  description: string | undefined;
  /** But for the seed. */
  config: TrainingConfig;
  /** In the order of the part's seeds. */
  runs: readonly SeedRun[];
  parameters: number;
  activeParameters: number;
  flopsPerToken: number;
  /** Of all runs together. */
  tokens: number;
  /** Of all runs together. */
  seconds: number;
  /** The final metric, averaged over the seeds. */
  value: number;
  /** Of the mean over the seeds; with one seed, of its evaluation, NaN where that has none. */
  standardError: number;
  /** Median over the seeds, where a run that never got there counts as infinite; null if that is infinite. */
  tokensToTarget: number | null;
  /** How many runs got to the target. */
  reached: number;
  /** What the first seed's model wrote. */
  sample: string | null;
}

export function armResult(
  { name, description }: Pick<Arm, "name" | "description">,
  config: TrainingConfig,
  runs: readonly SeedRun[],
): ArmResult {
  const outcomes = runs.map(({ outcome }) => outcome);
  const { parameters, activeParameters, flopsPerToken, sample } = outcomes[0]!;
  const toTarget = median(runs.map(({ tokensToTarget }) => tokensToTarget ?? Number.POSITIVE_INFINITY));
  return {
    name,
    description,
    config,
    runs,
    parameters,
    activeParameters,
    flopsPerToken,
    tokens: sum(outcomes.map(({ tokens }) => tokens)),
    seconds: sum(outcomes.map(({ seconds }) => seconds)),
    ...meanOf(outcomes),
    tokensToTarget: Number.isFinite(toTarget) ? toTarget : null,
    reached: runs.filter(({ tokensToTarget }) => tokensToTarget !== null).length,
    sample,
  };
}

/** The mean over the seeds with its standard error; with one seed, that of its evaluation. */
export function meanOf(measured: readonly { value: number; standardError: number }[]) {
  const values = measured.map(({ value }) => value);
  return {
    value: mean(values),
    standardError: values.length > 1 ? standardErrorOfMean(values) : measured[0]!.standardError,
  };
}

/**
 * What an arm's final metric has more than another's, averaged over the seeds that both were trained with, with its 95 % interval after Student. A seed decides
 * the data of both, so the differences vary less than the values.
 */
export function difference({ runs }: Pick<ArmResult, "runs">, other: Pick<ArmResult, "runs">): Interval {
  return studentInterval(runs.map(({ outcome }, i) => outcome.value - other.runs[i]!.outcome.value));
}

/** Median, smallest and largest value of several runs on a common grid of tokens. */
export type Band = Required<Omit<Series, "name">>;

/**
 * The band of curves that were measured at the same tokens as far as they go. A run that ended before others counts on
 * with its last value, so that the median reaches a target where the median run does.
 */
export function bandOf(curves: readonly Curve[]): Band {
  const x = [...new Set(curves.flatMap(({ tokens }) => tokens))].sort((a, b) => a - b);
  const columns = x.map((at) => curves.map(({ tokens, values }) => values[lastUpTo(tokens, at)] ?? Number.NaN));
  return {
    x,
    y: columns.map(median),
    low: columns.map((column) => Math.min(...column)),
    high: columns.map((column) => Math.max(...column)),
  };
}

/** The means of a curve between the tokens of a coarser grid: at every point, of what came after the point before. */
export function averagedOn(grid: readonly number[], { tokens, values }: Curve): Curve {
  const points = grid.map((to, i) => {
    const from = grid[i - 1] ?? Number.NEGATIVE_INFINITY;
    return mean(values.filter((_, j) => tokens[j]! > from && tokens[j]! <= to));
  });
  return { tokens: [...grid], values: points, standardErrors: points.map(() => Number.NaN) };
}

function lastUpTo(sorted: readonly number[], limit: number): number {
  return sorted.filter((value) => value <= limit).length - 1;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function mean(values: readonly number[]): number {
  return sum(values) / values.length;
}

/** Of an even number of values, the middle of the two in the middle; NaN if a value is. */
export function median(values: readonly number[]): number {
  if (values.some(Number.isNaN)) return Number.NaN;
  const sorted = [...values].sort((a, b) => (a < b ? -1 : Number(a > b)));
  const half = sorted.length / 2;
  return (sorted[Math.ceil(half) - 1]! + sorted[Math.floor(half)]!) / 2;
}

function standardErrorOfMean(values: readonly number[]): number {
  const center = mean(values);
  const variance = sum(values.map((value) => (value - center) ** 2)) / (values.length - 1);
  return Math.sqrt(variance / values.length);
}
