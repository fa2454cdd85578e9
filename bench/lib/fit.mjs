/** Straight lines through measurements. */

/**
 * The line `intercept + slope·x` with the least squared relative residuals, and the largest of these: cost is linear when it is small, at
 * small x as at large ones.
 */
export function fitLine(xs, ys) {
  let [s, sx, sxx, sy, sxy] = [0, 0, 0, 0, 0];
  for (const [i, x] of xs.entries()) {
    const weight = 1 / ys[i] ** 2;
    s += weight;
    sx += weight * x;
    sxx += weight * x * x;
    sy += weight * ys[i];
    sxy += weight * x * ys[i];
  }
  const slope = (s * sxy - sx * sy) / (s * sxx - sx * sx);
  const intercept = (sy - slope * sx) / s;
  const residual = Math.max(...xs.map((x, i) => Math.abs(ys[i] / (intercept + slope * x) - 1)));
  return { slope, intercept, residual };
}
