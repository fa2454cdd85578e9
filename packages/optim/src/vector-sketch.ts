/**
 * Frequent Directions of the gradients of one vector: what the online Newton methods and S-AdaGrad keep. On batches `[N, d]`.
 */
import {
  add,
  astype,
  div,
  greater,
  matmul,
  mul,
  rsqrt,
  square,
  sub,
  type Tensor,
  transpose,
  where,
  zeros,
} from "@llmeff/tensor";
import { type Sketch, updateSketch } from "./frequent-directions.js";
import { batchOf, itemOf } from "./leaves.js";

/** Of one vector: `u` `[d, k]`, `s` `[k]`, and in `tail` `[]` the sum of the squares `ρ²` by which it was deflated. */
export type VectorSketch = { readonly u: Tensor; readonly s: Tensor; readonly tail: Tensor };

/** An empty sketch of a vector of `size` numbers. One of no directions keeps a column of zeros, so that no array is empty. */
export function emptyVectorSketch({ size, dtype, device }: Tensor, directions: number): VectorSketch {
  const k = Math.max(1, directions);
  const make = (shape: readonly number[]) => zeros(shape, { dtype, device });
  return { u: make([size, k]), s: make([k]), tail: make([]) };
}

export function batchOfVectorSketches(sketches: readonly VectorSketch[]): Sketch {
  const batch = (key: keyof VectorSketch) => batchOf(sketches.map((sketch) => sketch[key]));
  return { u: batch("u"), s: batch("s"), tail: batch("tail") };
}

export function itemOfVectorSketches({ u, s, tail }: Sketch, i: number): VectorSketch {
  return { u: itemOf(u, i), s: itemOf(s, i), tail: itemOf(tail, i) };
}

/** Adds `rows` `[N, d]` to sketches of so many `directions`; what is deflated is added to their tails. */
export function addRows(sketch: Sketch, rows: Tensor, directions: number, rankTol: number): Sketch {
  if (directions > 0) return updateSketch(sketch, rows.unsqueeze(-1), { beta2: 1, tailDecay: "beta2", rankTol });
  return { ...sketch, tail: add(sketch.tail, square(rows).sum({ axis: -1 })) };
}

/** How the inverse of an eigenvalue is taken; that of 0 is 0. */
export type Spectrum = "rsqrt" | "inverse";

/**
 * `Pᵀ(f(α + s²) ⊙ P x) + f(α)(x − PᵀP x)` with `α = offset + kappa · tail`.
 *
 * @param x - `[N, d]`
 */
export function applySpectrum(
  { u, s, tail }: Sketch,
  x: Tensor,
  { offset, kappa, spectrum }: { offset: number; kappa: number; spectrum: Spectrum },
): Tensor {
  const f = spectrum === "rsqrt" ? rsqrt : (y: Tensor) => div(1, y);
  const orZero = (y: Tensor) => where(greater(y, 0), f(where(greater(y, 0), y, 1)), 0);
  // In float64: with a small α the weights nearly cancel.
  const alpha = add(mul(astype(tail, "float64"), kappa), offset).unsqueeze(-1);
  const rest = orZero(alpha);
  const along = sub(orZero(add(square(astype(s, "float64")), alpha)), rest);
  return add(mul(x, astype(rest, x.dtype)), spread(u, along, x));
}

/** `Pᵀ(w ⊙ P x)` */
export function spread(u: Tensor, weights: Tensor, x: Tensor): Tensor {
  const column = matmul(transpose(u), x.unsqueeze(-1));
  return matmul(u, mul(column, astype(weights, x.dtype).unsqueeze(-1))).squeeze(-1);
}
