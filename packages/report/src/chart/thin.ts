/** Fewer points with the same picture: what a line chart cannot show need not be in the file. */
import { ShapeError } from "@llmeff/native/errors";
import type { Series } from "../model.js";

/** @throws {ShapeError} if the arrays of a series differ in length */
export function checkSeries(series: Series): void {
  for (const [name, array] of [
    ["y", series.y],
    ["low", series.low],
    ["high", series.high],
  ] as const) {
    if (array === undefined || array.length === series.x.length) continue;
    throw new ShapeError(
      `[lineChart] the series "${series.name}" has ${series.x.length} values of x but ${array.length} of ${name}.`,
    );
  }
}

/**
 * Indices to keep so that a line drawn `buckets` pixels wide looks the same: first, lowest, highest and last point of
 * every bucket (the M4 aggregation of Jugel et al., VLDB 2014), and one missing point for every gap.
 *
 * @param place - position of a point on the x axis in [0, 1]
 */
export function thin(series: Series, place: (x: number) => number, buckets: number): number[] {
  const count = series.x.length;
  if (count <= 2 * buckets) return Array.from({ length: count }, (_, i) => i);
  const kept: number[] = [];
  for (let start = 0; start < count; ) {
    const bucket = bucketOf(series, place, buckets, start);
    let end = start + 1;
    while (end < count && bucketOf(series, place, buckets, end) === bucket) end++;
    kept.push(...extremes(series, start, end));
    start = end;
  }
  return kept;
}

function bucketOf(series: Series, place: (x: number) => number, buckets: number, index: number): number {
  return Math.floor(place(series.x[index]!) * buckets);
}

function extremes({ y }: Series, start: number, end: number): number[] {
  const kept = new Set([start, end - 1]);
  let lowest = -1;
  let highest = -1;
  let gap = -1;
  for (let i = start; i < end; i++) {
    const value = y[i]!;
    if (!Number.isFinite(value)) gap = i;
    else {
      if (lowest < 0 || value < y[lowest]!) lowest = i;
      if (highest < 0 || value > y[highest]!) highest = i;
    }
  }
  for (const index of [lowest, highest, gap]) if (index >= 0) kept.add(index);
  return [...kept].sort((a, b) => a - b);
}
