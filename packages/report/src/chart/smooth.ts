/** Smoothing of noisy curves. */
import { OptionError } from "@llmeff/native/errors";
import type { LineChart, Series } from "../model.js";

/**
 * Exponential moving average with the centre of mass of a window of `span` points, `decay = 1 - 2 / (span + 1)`. The
 * sum is divided by its weights so far, so that the beginning isn't drawn towards 0. Gaps stay gaps and don't count.
 */
export function movingAverage(values: ArrayLike<number>, span: number): number[] {
  const decay = 1 - 2 / (span + 1);
  let sum = 0;
  let weight = 0;
  return Array.from(values, (value) => {
    if (!Number.isFinite(value)) return value;
    sum = decay * sum + value;
    weight = decay * weight + 1;
    return sum / weight;
  });
}

/**
 * The series as its line shows it.
 *
 * @throws {OptionError} if the chart's smoothing is not a number of points
 */
export function shownSeries(chart: LineChart, series: Series): Series {
  const { smoothing } = chart;
  if (smoothing === undefined || series.low || series.high) return series;
  if (!Number.isFinite(smoothing) || smoothing < 1) {
    throw new OptionError(`[lineChart] smoothing must be 1 or more points; received ${smoothing} in "${chart.title}".`);
  }
  return { ...series, y: movingAverage(series.y, smoothing) };
}
