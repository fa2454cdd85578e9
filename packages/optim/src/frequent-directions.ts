/**
 * Frequent Directions (Ghashami et al. 2016; with exponential weighting Feinberg et al., arXiv:2302.03764): the largest eigenvectors of a running
 * sum of `G Gᵀ`, and how much of it they miss. On batches.
 */
import {
  add,
  astype,
  concat,
  eigh,
  flip,
  greater,
  lessEqual,
  logicalAnd,
  matmul,
  maximum,
  mul,
  pow,
  scope,
  sqrt,
  square,
  sub,
  svd,
  type Tensor,
  transpose,
  where,
} from "@llmeff/tensor";

/** Sketches of a batch of covariances of size d. */
export interface Sketch {
  /** `[N, d, k]`: orthonormal columns, or zero ones where nothing was seen. */
  u: Tensor;
  /** `[N, k]`: square roots of the deflated eigenvalues, descending. */
  s: Tensor;
  /** `[N]`: the escaped mass τ. */
  tail: Tensor;
}

export interface SketchOptions {
  /** Decay of what was seen; 1 adds up. */
  beta2: number;
  /** Whether the tail decays as the covariance does, or by the square root of that. */
  tailDecay: "beta2" | "sqrtBeta2";
  /** Singular values of at most this times the largest are rounding, and count as 0. */
  rankTol: number;
}

/**
 * Adds `G Gᵀ` to sketches: `B = [√beta2 U diag(s) | G] = U' Σ V'ᵀ`, `σ = Σ_{k+1}`, `s_i = √(Σ_i − σ) √(Σ_i + σ)`, `τ ← beta2 τ + σ²`.
 *
 * With `C` the exact weighted sum, `0 ⪯ C − U diag(s²) Uᵀ ⪯ τ I`.
 *
 * @param g - `[N, d, w]`
 */
export function updateSketch({ u, s, tail }: Sketch, g: Tensor, { beta2, tailDecay, rankTol }: SketchOptions): Sketch {
  return scope(() => {
    const k = s.shape.at(-1)!;
    const { dtype } = u;
    const wide = (x: Tensor) => astype(x, "float64");
    const kept = mul(wide(u), mul(wide(s), Math.sqrt(beta2)).unsqueeze(-2));
    const b = concat([kept, wide(g)], -1);
    const { vectors, values } = dtype === "float64" ? leftByDecomposition(b) : leftByGram(b);
    const known = values.shape.at(-1)!;
    const clean = where(lessEqual(values, mul(values.slice(-1, 0, 1), rankTol)), 0, values);
    const cut = known > k ? clean.slice(-1, k, k + 1) : clean.slice(-1, 0, 1).mul(0);
    const top = clean.slice(-1, 0, k);
    const deflated = mul(sqrt(sub(top, cut)), sqrt(add(top, cut)));
    const nextU = where(greater(deflated, 0).unsqueeze(-2), vectors.slice(-1, 0, k), 0);
    const decay = tailDecay === "beta2" ? beta2 : Math.sqrt(beta2);
    const nextTail = add(mul(wide(tail), decay), square(cut).reshape(tail.shape));
    return { u: astype(nextU, dtype), s: astype(deflated, dtype), tail: astype(nextTail, dtype) };
  });
}

interface Left {
  /** `[N, d, r]` */
  vectors: Tensor;
  /** `[N, r]`, descending. */
  values: Tensor;
}

function leftByDecomposition(b: Tensor): Left {
  const { u, s } = svd(b);
  return { vectors: u, values: s };
}

/**
 * Left singular vectors from the eigenvectors of the smaller of `Bᵀ B` and `B Bᵀ`. That squares the condition number: in float64 singular values
 * are then good to 1e-8 of the largest, which is enough for statistics in float32; in float32 a null one would come out above the rank tolerance.
 */
function leftByGram(b: Tensor): Left {
  const [d, width] = [b.shape.at(-2)!, b.shape.at(-1)!];
  const left = d <= width;
  const { values, vectors } = eigh(left ? matmul(b, transpose(b)) : matmul(transpose(b), b));
  const descending = sqrt(maximum(flip(values, -1), 0));
  const ordered = flip(vectors, -1);
  if (left) return { vectors: ordered, values: descending };
  // Null directions stay finite; they are zeroed by the rank tolerance.
  const positive = greater(descending, 0);
  const scales = where(positive, descending, 1).unsqueeze(-2);
  return { vectors: matmul(b, ordered).div(scales), values: descending };
}

export interface ApplyOptions {
  /** The power α of the compensated matrix, such as −1/4. */
  exponent: number;
  eps: number;
  /** `eps` times the largest eigenvalue, or `eps` itself, is added to the eigenvalues. */
  relativeEps: boolean;
}

/**
 * `(U diag(s²) Uᵀ + τ I + ε I)^α x` by `4dk` multiply-adds a column, without a d × d matrix:
 * `itail x + U ((inv − itail) ⊙ Uᵀ x)` with `inv_i = (s_i² + τ + ε)^α`, and `itail = (τ + ε)^α`, or 0 where τ is 0.
 *
 * @param x - `[N, d, …]` as `[N, d, w]`
 */
export function applySketch({ u, s, tail }: Sketch, x: Tensor, { exponent, eps, relativeEps }: ApplyOptions): Tensor {
  return scope(() => {
    const t = astype(tail, "float64").unsqueeze(-1);
    const eigenvalues = add(square(astype(s, "float64")), t);
    const ridge = relativeEps ? mul(eigenvalues.slice(-1, 0, 1), eps) : eps;
    const tailInverse = powerWhere(greater(t, 0), add(t, ridge), exponent);
    const inverses = powerWhere(greater(s, 0), add(eigenvalues, ridge), exponent);
    const weights = astype(sub(inverses, tailInverse), u.dtype).unsqueeze(-1);
    const along = mul(matmul(transpose(u), x), weights);
    return add(mul(x, astype(tailInverse, u.dtype).unsqueeze(-1)), matmul(u, along));
  });
}

/** `x^α` where the condition holds, else 0. */
function powerWhere(condition: Tensor, x: Tensor, exponent: number): Tensor {
  const positive = logicalAnd(condition, greater(x, 0));
  return where(positive, pow(where(positive, x, 1), exponent), 0);
}
