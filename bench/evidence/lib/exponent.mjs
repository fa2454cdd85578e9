/**
 * The exponent of a scaling law, as the authors of 2-simplicial attention fit it (arXiv:2507.02754 §8): with the same data for all sizes,
 * `−ln L = α ln N + β`, by least squares.
 */
import { studentHalfWidth } from "@llmeff/report";
import { mean } from "./statistics.mjs";

/**
 * @param points - `{ parameters, loss }` of models of at least two sizes
 * @returns `{ alpha, beta, r2, sse }`, and `low` and `high` of α at 95 % where there are more than two points
 */
export function fitExponent(points) {
  const x = points.map(({ parameters }) => Math.log(parameters));
  const y = points.map(({ loss }) => -Math.log(loss));
  const [meanX, meanY] = [mean(x), mean(y)];
  const products = (a, meanA, b, meanB) => a.reduce((sum, _, i) => sum + (a[i] - meanA) * (b[i] - meanB), 0);
  const spread = products(x, meanX, x, meanX);
  const alpha = products(x, meanX, y, meanY) / spread;
  const beta = meanY - alpha * meanX;
  const sse = y.reduce((sum, value, i) => sum + (value - alpha * x[i] - beta) ** 2, 0);
  const fit = { alpha, beta, sse, r2: 1 - sse / products(y, meanY, y, meanY) };
  const freedom = points.length - 2;
  if (freedom < 1) return fit;
  const half = studentHalfWidth(Math.sqrt(sse / freedom / spread), freedom);
  return { ...fit, low: alpha - half, high: alpha + half };
}
