/**
 * SONew's factorisation with tensor operations: from the diagonals of the statistics to `X = L D Lᵀ`, all elements of all chains at once.
 */
import {
  astype,
  concat,
  div,
  expand,
  full,
  greater,
  logicalNot,
  mul,
  neg,
  slice,
  sub,
  type Tensor,
  where,
  zerosLike,
} from "@llmeff/tensor";
import type { SonewHyper } from "./sonew-options.js";

/** Where edges are dropped, and how. */
export interface StabilityRule extends Pick<SonewHyper, "gammaMode" | "drop"> {
  gamma: number;
  /** A pivot of at most this part of its diagonal may be rounding alone: its vertex is left out of the window. */
  pivotFloor: number;
}

/** `X = L D Lᵀ` of chains `[chains, n]`, in float64. */
export interface SonewFactor {
  /** `S`, before any edge was dropped. */
  schur: Tensor;
  /** bool: what the stability rule found. */
  failed: Tensor;
  /** `lower[k − 1][c, j] = L[j + k, j]` of chain c, k = 1 … b; 0 where there is no edge. */
  lower: Tensor[];
  /** `1 / D`. */
  pivots: Tensor;
}

/**
 * The LogDet-nearest `X` to the inverse of banded statistics: `X⁻¹` agrees with them on the band.
 *
 * Each window `H[j … j+b, j … j+b]` is eliminated from its last vertex to its second, which leaves `S_j` as the first pivot; the first row of
 * the inverse of the unit upper factor is `L[j … j+b, j]`.
 *
 * @param diagonals - b + 1 tensors `[chains, n]`; the main diagonal, with δ, then entries (j, j + k), zeros where there is none
 * @see arXiv:2311.10085; spec of the stability rule: `Sonew`'s `gamma` and `drop`
 */
export function factorise(diagonals: readonly Tensor[], rule: StabilityRule): SonewFactor {
  // In float64: where neighbours are correlated nearly all of a pivot cancels.
  const wide = diagonals.map((diagonal) => astype(diagonal, "float64"));
  const a = wide[0]!;
  const first = eliminate(wide, rule.pivotFloor);
  const threshold = rule.gammaMode === "relative" ? mul(a, rule.gamma) : rule.gamma;
  const failed = logicalNot(greater(first.schur, threshold)); // NaN fails
  let { schur: pivots, lower } = first;
  let kept = logicalNot(failed);
  if (rule.drop === "isolate") {
    ({ schur: pivots, lower } = eliminate(wide, rule.pivotFloor, astype(kept, "float64")));
    kept = greater(where(kept, pivots, -1), 0);
  }
  return {
    schur: first.schur,
    failed,
    lower: lower.map((l) => where(kept, l, zerosLike(l))),
    pivots: where(kept, pivots, a),
  };
}

/** All windows; with `kept`, 0 at failing vertices, windows end before the first of them that follows. */
function eliminate(
  diagonals: readonly Tensor[],
  pivotFloor: number,
  kept?: Tensor,
): { schur: Tensor; lower: Tensor[] } {
  const band = diagonals.length - 1;
  const rows = Array.from({ length: band + 1 }, (_, r) => r);
  const window = rows.map((r) => rows.map((c) => (c < r ? undefined : later(diagonals[c - r]!, r, c === r ? 1 : 0))));
  const at = (r: number, c: number) => window[r]![c]!;
  if (kept) {
    const keptLater = rows.map((r) => later(kept, r, 0));
    for (const r of rows) {
      let joined: Tensor | undefined;
      for (let c = r + 1; c <= band; c++) {
        joined = joined ? mul(joined, keptLater[c]!) : keptLater[c]!;
        window[r]![c] = mul(at(r, c), joined);
      }
    }
  }
  const main = rows.map((r) => at(r, r));
  for (let p = band; p > 0; p--) {
    const pivot = at(p, p);
    const sound = greater(pivot, mul(main[p]!, pivotFloor));
    const inverse = where(sound, div(1, where(sound, pivot, 1)), 0);
    for (let r = 0; r < p; r++) {
      const u = mul(at(r, p), inverse);
      for (let c = r; c < p; c++) window[r]![c] = sub(at(r, c), mul(u, at(c, p)));
      window[r]![p] = u;
    }
  }
  const lower: Tensor[] = [];
  for (let p = 1; p <= band; p++) {
    lower.push(lower.reduce((l, before, r) => sub(l, mul(before, at(r + 1, p))), neg(at(0, p))));
  }
  return { schur: at(0, 0), lower };
}

/** `L D Lᵀ m`, in float64. */
export function precondition({ lower, pivots }: SonewFactor, m: Tensor): Tensor {
  const wide = astype(m, "float64");
  const w = lower.reduce((sum, l, i) => sum.add(mul(l, later(wide, i + 1, 0))), wide);
  const z = div(w, pivots);
  return lower.reduce((sum, l, i) => sum.add(earlier(mul(l, z), i + 1)), z);
}

/** `x[:, k:]`, then `end`. */
export function later(x: Tensor, k: number, end: number): Tensor {
  const [chains, n] = x.shape as [number, number];
  if (k === 0) return x;
  const tail = expand(full([1, 1], end, { dtype: x.dtype, device: x.device }), [chains, Math.min(k, n)]);
  return k >= n ? tail : concat([slice(x, 1, k, n), tail], 1);
}

/** Zeros, then `x[:, :−k]`. */
export function earlier(x: Tensor, k: number): Tensor {
  const [chains, n] = x.shape as [number, number];
  const head = expand(full([1, 1], 0, { dtype: x.dtype, device: x.device }), [chains, Math.min(k, n)]);
  return k >= n ? head : concat([head, slice(x, 1, 0, n - k)], 1);
}
