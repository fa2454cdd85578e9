/** Means with 95 % intervals, for tables of runs that were repeated with a few seeds. */

/** 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom. */
const quantiles = [
  12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.306, 2.2622, 2.2281, 2.201, 2.1788, 2.1604, 2.1448, 2.1314,
  2.1199, 2.1098, 2.1009, 2.093, 2.086,
];

/** Beyond the table its expansion in 1/ν around the normal quantile (Abramowitz and Stegun 26.7.5), right to 5e-5. */
function studentQuantile(freedom: number): number {
  return quantiles[freedom - 1] ?? 1.959964 + 2.37227 / freedom + 2.82251 / freedom ** 2 + 2.55588 / freedom ** 3;
}

/**
 * Half of a two-sided 95 % interval after Student: `t · standardError`, with `t` the 97.5 % quantile of `freedom` degrees.
 *
 * @param freedom - a whole number, at least 1: values less the parameters that were estimated from them
 */
export function studentHalfWidth(standardError: number, freedom: number): number {
  return standardError * studentQuantile(freedom);
}

export interface Interval {
  mean: number;
  low: number;
  high: number;
}

/**
 * The mean of independent values with its 95 % interval after Student, `mean ± t · s/√n`. Fewer than two have no interval: its ends are NaN then, and the mean of none is, too.
 *
 * @example
 * studentInterval([1.82, 1.84, 1.83]); // { mean: 1.83, low: 1.805…, high: 1.854… }
 */
export function studentInterval(values: readonly number[]): Interval {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const half = n < 2 ? Number.NaN : studentHalfWidth(Math.sqrt(squares / (n - 1) / n), n - 1);
  return { mean, low: mean - half, high: mean + half };
}
