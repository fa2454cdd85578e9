/**
 * The Newton–Schulz iteration of Muon (Jordan et al. 2024).
 */
import {
  add,
  astype,
  copyInto,
  type DType,
  diagonal,
  div,
  matmul,
  mul,
  scope,
  sqrt,
  square,
  sum,
  type Tensor,
  transpose,
} from "@llmeff/tensor";
import { checkCount } from "./check.js";

export interface NewtonSchulzOptions {
  /** Iterations. Default 5. */
  steps?: number;
  /** What the products are computed in; the result has the dtype of `x`. Default that of `x`; bfloat16 is usual on a GPU. */
  dtype?: DType | undefined;
  /** Multiplies the result. Default 1. */
  scale?: number;
}

/**
 * Muon's quintic `a x + b x³ + c x⁵`: the slope at 0 is as large as it can be while 5 iterations keep singular values within about
 * [0.6, 1.3], to which they then scatter rather than converge.
 */
const a = 3.4445;
const b = -4.775;
const c = 2.0315;

/**
 * The nearest semi-orthogonal matrix, roughly: `U Sᵢ Vᵀ` for `x = U S Vᵀ` with the singular values `Sᵢ` in about [0.6, 1.3] unless they were
 * below a thousandth of the norm.
 *
 * `X = x / (‖x‖ + 1e-7)`; then `steps` times `A = X Xᵀ`, `X ← a X + (b A + c A²) X`, by the shorter side.
 *
 * @param x - `[…, M, N]`; leading axes are a batch
 * @returns the shape and dtype of `x`
 */
export function newtonSchulz(x: Tensor, options: NewtonSchulzOptions = {}): Tensor {
  const { steps = 5, dtype = x.dtype, scale = 1 } = options;
  checkCount("newtonSchulz", "steps", steps);
  return scope(() => {
    const tall = x.shape.at(-2)! > x.shape.at(-1)!;
    const wide = tall ? transpose(x) : x;
    const length = sqrt(sum(square(wide), { axis: [-2, -1], keepDims: true }));
    let y = mul(wide, div(fourthRootOfC, add(length, 1e-7)));
    if (y.dtype !== dtype) y = astype(y, dtype);
    for (let step = 0; step < steps; step++) y = iterate(y);
    const out = mul(y.dtype === x.dtype ? y : astype(y, x.dtype), scale / fourthRootOfC);
    return tall ? transpose(out) : out;
  });
}

const fourthRootOfC = c ** 0.25;

/**
 * One iteration on `Y = c^¼ X`, for which `Y Yᵀ = √c A`. With the square completed, `a + b A + c A² = (√c A + b/(2√c))² + a − b²/(4c)`: two
 * additions to the diagonal and three products, and no pass over a whole matrix between them.
 */
function iterate(y: Tensor): Tensor {
  return scope(() => {
    const s = addToDiagonal(matmul(y, transpose(y)), b / (2 * Math.sqrt(c)));
    return matmul(addToDiagonal(matmul(s, s), a - b ** 2 / (4 * c)), y);
  });
}

/** `x + value · I`, in place: for temporaries. */
function addToDiagonal(x: Tensor, value: number): Tensor {
  const entries = diagonal(x);
  copyInto(entries, add(entries, value));
  return x;
}
