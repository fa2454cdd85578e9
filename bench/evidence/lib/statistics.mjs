import { studentInterval } from "@llmeff/report";

export const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;

/** Of the mean; one value has none. */
export const standardError = (values) =>
  values.length < 2 ? undefined : Math.sqrt(mean(values.map((x) => (x - mean(values)) ** 2)) / (values.length - 1));

/** `{ mean, low, high }`: the mean with its 95 % interval after Student; fewer than two values have no interval. */
export function meanInterval(values) {
  return values.length < 2 ? { mean: mean(values) } : studentInterval(values);
}
