export const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;

/** Of the mean; one value has none. */
export const standardError = (values) =>
  values.length < 2 ? undefined : Math.sqrt(mean(values.map((x) => (x - mean(values)) ** 2)) / (values.length - 1));

/** Two-sided 95 % of Student's t for 1, 2, … degrees of freedom. */
const student = [
  12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.306, 2.2622, 2.2281, 2.201, 2.1788, 2.1604, 2.1448, 2.1314,
  2.1199, 2.1098, 2.1009, 2.093, 2.086,
];

/** The half width of a 95 % interval from its standard error; beyond 20 degrees of freedom by `1.96 + 2.4/ν`, right to 0.001. */
export const halfWidth = (error, freedom) =>
  error * (student[freedom - 1] ?? 1.95996 + 2.4 / freedom + 2.8 / freedom ** 2);

/** `{ mean, low, high }`: the mean with its 95 % interval after Student; fewer than two values have no interval. */
export function meanInterval(values) {
  const center = mean(values);
  if (values.length < 2) return { mean: center };
  const half = halfWidth(standardError(values), values.length - 1);
  return { mean: center, low: center - half, high: center + half };
}
