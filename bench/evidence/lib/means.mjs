/** Means over seeds. */

export const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;

/** Of the mean; one value has none. */
export function standardError(values) {
  if (values.length < 2) return undefined;
  return Math.sqrt(mean(values.map((x) => (x - mean(values)) ** 2)) / (values.length - 1));
}
