/** What Sketchy's authors say of eigenvalues (arXiv:2302.03764): how few of them hold most of the trace. */

/** The numbers of eigenvalues whose share of the trace is told: the ranks of the other study. */
export const ranks = [8, 16, 32, 64, 128, 256];

const share = (x) => Number(x.toPrecision(5));

/** Shares of the trace, the largest first; rounding makes the eigenvalues of a Gram matrix's null space slightly negative. */
function sharesOf(values) {
  const positive = Array.from(values, (x) => Math.max(0, x));
  const trace = positive.reduce((sum, x) => sum + x, 0);
  return positive.map((x) => x / trace);
}

/**
 * Of eigenvalues `λ` in descending order: the share of the trace in the largest quarter (`topQuarter`) and in the largest 8, 16, … of them
 * (`top`), and the intrinsic dimension `tr / λ_1`.
 */
export function spectrumFacts(values) {
  const shares = sharesOf(values);
  const mass = (count) => share(shares.slice(0, count).reduce((sum, x) => sum + x, 0));
  return {
    size: values.length,
    topQuarter: mass(Math.round(values.length / 4)),
    top: ranks.map(mass),
    intrinsicDimension: share(1 / shares[0]),
  };
}

/** `[i, λ_i / tr]` for about 40 numbers i from 1, evenly spaced in their logarithm. */
export function spectrumPoints(values) {
  const shares = sharesOf(values);
  const places = Array.from({ length: 41 }, (_, i) => Math.round(shares.length ** (i / 40)));
  return [...new Set(places)].map((i) => [i, share(shares[i - 1])]);
}
