/**
 * Inverse p-th roots of the statistics of Shampoo, by eigendecomposition or by coupled Newton iterations. Both work on batches and in
 * float64: the roots of nearly singular matrices lose half of the digits of what they are computed in.
 */
import {
  abs,
  add,
  astype,
  diagonal,
  div,
  eigh,
  eye,
  greater,
  lessEqual,
  logicalAnd,
  matmul,
  max,
  maximum,
  mul,
  pow,
  scope,
  sqrt,
  square,
  sub,
  sum,
  type Tensor,
  transpose,
  where,
} from "@llmeff/tensor";

/** How small eigenvalues are kept from making the root explode. */
export type RidgeMode = "relative" | "absolute" | "cutoff";

export interface InverseRootOptions {
  /** The root: the result is the matrix to the power `−1/p`. */
  p: number;
  eps: number;
  /**
   * `"relative"`: `eps · max(λmax, 1e-25)` is added to the diagonal. `"absolute"`: `eps` is. `"cutoff"`: eigenvalues of at most `eps · λmax` count
   * as having no inverse (`inverseRoot` only).
   */
  ridge: RidgeMode;
}

/** λmax counts as at least this, so that the root of a zero matrix is finite. */
const smallestScale = 1e-25;

/** `(M + ridge · I)^(−1/p)` of symmetric matrices `[…, n, n]`, by their eigendecomposition in float64. */
export function inverseRoot(matrix: Tensor, { p, eps, ridge }: InverseRootOptions): Tensor {
  return scope(() => {
    const { values, vectors } = eigh(astype(matrix, "float64"));
    const largest = max(values, { axis: -1, keepDims: true });
    // Rounding makes the null space of a Gram matrix slightly negative.
    const positive = maximum(values, 0);
    let inverses: Tensor;
    if (ridge === "cutoff") {
      const kept = greater(positive, mul(largest, eps));
      inverses = where(kept, pow(where(kept, positive, 1), -1 / p), 0);
    } else {
      inverses = pow(add(positive, ridge === "relative" ? mul(maximum(largest, smallestScale), eps) : eps), -1 / p);
    }
    const root = matmul(mul(vectors, inverses.unsqueeze(-2)), transpose(vectors));
    return astype(root, matrix.dtype);
  });
}

export interface CoupledNewtonOptions extends InverseRootOptions {
  /** What is iterated in; default float64. float32 is faster on GPUs without fast float64, and needs `retries`. */
  dtype?: "float32" | "float64";
  /** Iterations end at `max|M − I|` of this. Default 1e-12 in float64, 1e-6 in float32. */
  tolerance?: number;
  /** Default 100. With a relative ridge fewer are queued: as many as the largest condition number that it allows can need. */
  maxIterations?: number;
  /**
   * Attempts with a ridge ten times larger for matrices that ended with an error above 0.05. Nothing waits for the device to ask whether one is
   * needed, so each costs as much as the first. Default 0.
   */
  retries?: number;
}

export interface NewtonRoot {
  /** `[…, n, n]`, dtype of the matrix. */
  root: Tensor;
  /** `max|M − I|` of each matrix, `[…, 1, 1]`; NaN for a matrix that isn't finite. */
  error: Tensor;
}

/**
 * `(M + ridge · I)^(−1/p)` of symmetric positive semi-definite matrices by products alone (Iannazzo 2006; Anil et al., arXiv:2002.09018):
 * `z = (1 + p) / (2‖A‖)`, `M = z A`, `X = z^(1/p) I`; then `T = (1 + 1/p) I − M/p`, `M ← Tᵖ M`, `X ← X T`, until M is the identity or
 * moves away from it by more than 1.2 times.
 */
export function coupledNewton(matrix: Tensor, options: CoupledNewtonOptions): NewtonRoot {
  const { eps, ridge, dtype = "float64", retries = 0 } = options;
  return scope(() => {
    const wide = astype(matrix, dtype);
    const scale = ridge === "relative" ? maximum(largestEigenvalue(wide), smallestScale) : 1;
    const scaled = (factor: number) => (typeof scale === "number" ? scale * eps * factor : mul(scale, eps * factor));
    let best = iterate(plusIdentity(wide, scaled(1)), options);
    for (let retry = 1; retry <= retries; retry++) {
      const next = iterate(plusIdentity(wide, scaled(10 ** retry)), options);
      const failed = greater(best.error, retryAbove);
      best = { root: where(failed, next.root, best.root), error: where(failed, next.error, best.error) };
    }
    return { root: astype(best.root, matrix.dtype), error: best.error };
  });
}

const retryAbove = 0.05;
const growthLimit = 1.2;

function iterate(a: Tensor, options: CoupledNewtonOptions): NewtonRoot {
  const { p, dtype = "float64", tolerance = dtype === "float64" ? 1e-12 : 1e-6 } = options;
  const n = a.shape.at(-1)!;
  const identity = eye(n, undefined, { dtype, device: a.device });
  const z = div((1 + p) / 2, lengthOf(a));
  let m = mul(a, z);
  let x = mul(identity, pow(z, 1 / p));
  let error = distance(m, identity);
  let running = greater(error, tolerance);
  for (let i = iterationsFor(n, options); i > 0; i--) {
    // Matrices that have arrived, or began to diverge, stay as they are while others of the batch go on.
    ({ m, x, error, running } = scope(() => {
      const t = sub(mul(identity, 1 + 1 / p), div(m, p));
      const nextM = matmul(powerOf(t, p), m);
      const nextError = distance(nextM, identity);
      const accepted = logicalAnd(running, lessEqual(nextError, mul(error, growthLimit)));
      return {
        m: where(accepted, nextM, m),
        x: where(accepted, matmul(x, t), x),
        error: where(accepted, nextError, error),
        running: logicalAnd(accepted, greater(nextError, tolerance)),
      };
    }));
  }
  return { root: x, error };
}

/** Keeps the scale of a zero matrix finite; its square is a normal number. */
const smallestNorm = (x: Tensor) => (x.dtype === "float64" ? 1e-150 : 1e-18);

/** The length of each matrix, `[…, 1, 1]`. */
function lengthOf(x: Tensor): Tensor {
  return maximum(sqrt(sum(square(x), { axis: [-2, -1], keepDims: true })), smallestNorm(x));
}

function distance(m: Tensor, identity: Tensor): Tensor {
  return max(abs(sub(m, identity)), { axis: [-2, -1], keepDims: true });
}

/**
 * While an eigenvalue of M is small, an iteration multiplies it by nearly `(1 + 1/p)ᵖ`; it begins at `(1 + p)/2 · λmin/‖A‖`, which a relative
 * ridge keeps above `eps/√n`. The last ones converge quadratically.
 */
function iterationsFor(n: number, { p, eps, ridge, maxIterations = 100 }: CoupledNewtonOptions): number {
  if (ridge !== "relative" || eps === 0) return maxIterations;
  const linear = Math.log(Math.sqrt(n) / eps) / (p * Math.log1p(1 / p));
  return Math.min(maxIterations, Math.ceil(linear) + 8);
}

/** `tᵖ` by squaring. */
function powerOf(t: Tensor, p: number): Tensor {
  let result: Tensor | undefined;
  let square = t;
  for (let rest = p; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) result = result ? matmul(result, square) : square;
    if (rest > 1) square = matmul(square, square);
  }
  return result!;
}

/**
 * λmax of positive semi-definite matrices as `tr(A Aᴷ) / tr(Aᴷ)` with K = 4096: an average of the eigenvalues weighted by their powers, which no
 * unlucky start can miss. `[…, 1, 1]`.
 */
function largestEigenvalue(a: Tensor): Tensor {
  const normalized = (x: Tensor) => div(x, lengthOf(x));
  let power = normalized(a);
  for (let k = 0; k < 12; k++) power = scope(() => normalized(matmul(power, power)));
  const trace = sum(diagonal(power), { axis: -1, keepDims: true }).unsqueeze(-1);
  return div(sum(mul(a, power), { axis: [-2, -1], keepDims: true }), maximum(trace, smallestNorm(a)));
}

function plusIdentity(a: Tensor, value: Tensor | number): Tensor {
  return add(a, mul(eye(a.shape.at(-1)!, undefined, { dtype: a.dtype, device: a.device }), value));
}
