/** Rank correlation, for the question which tasks measure the same thing. */
import { requireFinite, requireSameLength } from "./require.js";

/**
 * Spearman's ρ: Pearson's correlation of the ranks, equal values sharing their mean rank. Null if either side is constant or shorter than two.
 *
 * @param x - scores of some models on one task
 * @param y - of the same models on another task
 */
export function spearman(x: readonly number[], y: readonly number[]): number | null {
  requireSameLength("spearman", ["x", "y"], x, y);
  const ranksX = averageRanks(x);
  const ranksY = averageRanks(y);
  const middle = (x.length + 1) / 2;
  let xy = 0;
  let xx = 0;
  let yy = 0;
  for (let i = 0; i < x.length; i++) {
    const dx = ranksX[i]! - middle;
    const dy = ranksY[i]! - middle;
    xy += dx * dy;
    xx += dx * dx;
    yy += dy * dy;
  }
  return xx === 0 || yy === 0 ? null : xy / Math.sqrt(xx * yy);
}

/** Ranks 1 … n; equal values get the mean of theirs. */
export function averageRanks(values: readonly number[]): number[] {
  requireFinite("averageRanks", "values", values);
  const order = values.map((_, i) => i).sort((i, j) => values[i]! - values[j]!);
  const ranks = new Array<number>(values.length);
  for (let start = 0; start < order.length; ) {
    let end = start + 1;
    while (end < order.length && values[order[end]!] === values[order[start]!]) end++;
    for (let k = start; k < end; k++) ranks[order[k]!] = (start + 1 + end) / 2;
    start = end;
  }
  return ranks;
}
