/** Scores over depth and length, as the needle test shows them. */
import { OptionError } from "@llmeff/native/errors";
import { requireFinite } from "./require.js";

export interface HeatMapRecord {
  /** Tokens. */
  length: number;
  /** Place of the needle in per cent of the context. */
  depth: number;
  /** Null for a request that failed: it is counted apart, never as 0. */
  score: number | null;
}

export interface HeatMap {
  lengths: number[];
  depths: number[];
  /** `[depth][length]`, like the next two; null in a cell without scores. */
  mean: (number | null)[][];
  /** Scores in the cell, errors not among them. */
  n: number[][];
  errors: number[][];
}

export interface HeatMapAxes {
  /** Centres of the columns, in tokens, ascending; default the lengths that occur. */
  lengths?: readonly number[];
  /** Centres of the rows, in per cent, ascending; default the depths that occur. */
  depths?: readonly number[];
}

/** Each record counts in the cell whose centre is nearest on both axes, by plain distance; midway in the lower one. */
export function heatMap(records: readonly HeatMapRecord[], axes: HeatMapAxes = {}): HeatMap {
  requireFinite(
    "heatMap",
    "length",
    records.map(({ length }) => length),
  );
  requireFinite(
    "heatMap",
    "depth",
    records.map(({ depth }) => depth),
  );
  requireFinite(
    "heatMap",
    "score",
    records.map(({ score }) => score ?? 0),
  );
  const lengths = axis(
    "lengths",
    axes.lengths,
    records.map(({ length }) => length),
  );
  const depths = axis(
    "depths",
    axes.depths,
    records.map(({ depth }) => depth),
  );
  const table = (): number[][] => depths.map(() => lengths.map(() => 0));
  const sums = table();
  const n = table();
  const errors = table();
  for (const { length, depth, score } of records) {
    const row = nearest(depths, depth);
    const column = nearest(lengths, length);
    if (score === null) {
      errors[row]![column]!++;
      continue;
    }
    sums[row]![column]! += score;
    n[row]![column]!++;
  }
  const mean = sums.map((row, i) => row.map((sum, j) => (n[i]![j]! > 0 ? sum / n[i]![j]! : null)));
  return { lengths, depths, mean, n, errors };
}

function axis(name: string, given: readonly number[] | undefined, occurring: number[]): number[] {
  const centres = given ? [...given] : [...new Set(occurring)].sort((x, y) => x - y);
  requireFinite("heatMap", name, centres);
  const falling = centres.findIndex((centre, i) => i > 0 && centre <= centres[i - 1]!);
  if (falling >= 0 || (given && given.length === 0)) {
    throw new OptionError(
      `[heatMap] ${name} must be at least one number, ascending; received ${centres.join(", ") || "none"}.`,
    );
  }
  return centres;
}

function nearest(centres: readonly number[], value: number): number {
  let best = 0;
  for (let i = 1; i < centres.length; i++) {
    if (Math.abs(centres[i]! - value) < Math.abs(centres[best]! - value)) best = i;
  }
  return best;
}
