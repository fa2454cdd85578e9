import { engine } from "@llmeff/native";
import { defineOp } from "../../autograd.js";
import { Tensor } from "../../tensor.js";
import { contiguous } from "../arguments.js";
import { matmul } from "../matmul.js";
import { eye } from "../ranges.js";
import { unsqueeze } from "../views.js";
import { checkMatrices } from "./arguments.js";

/** `a = u · diag(s) · vh`, reduced: `K = min(M, N)`. */
export interface Svd {
  /** `[…, M, K]`, with orthonormal columns. */
  u: Tensor;
  /** `[…, K]`, not negative, descending. */
  s: Tensor;
  /** `[…, K, N]`, with orthonormal rows. */
  vh: Tensor;
}

/** `x − xᵀ`. */
const skew = (x: Tensor) => x.sub(x.T);

const svdOp = defineOp<undefined, readonly [Tensor, Tensor, Tensor]>({
  name: "svd",
  forward(context, [a]) {
    const [m, n] = [a!.shape.at(-2)!, a!.shape.at(-1)!];
    const [lead, k] = [a!.shape.slice(0, -2), Math.min(m, n)];
    const matrices = contiguous(a!);
    const u = Tensor.allocate(a!.dtype, [...lead, m, k]);
    const s = Tensor.allocate(a!.dtype, [...lead, k]);
    const vh = Tensor.allocate(a!.dtype, [...lead, k, n]);
    engine().op.svd(matrices.handle, u.handle, s.handle, vh.handle);
    context.save(u, s, vh);
    return [u, s, vh];
  },
  // da = u (E ∘ skew(uᵀ du) S + S E ∘ skew(vᵀ dv) + diag(ds)) vᵀ + (1 − u uᵀ) du S⁻¹ vᵀ + u S⁻¹ dvᵀ (1 − v vᵀ),
  // E[i, j] = 1 / (s[j]² − s[i]²) off the diagonal and 0 on it.
  backward({ saved: [u, s, vh] }, [du, ds, dvh]) {
    const k = s!.shape.at(-1)!;
    const one = eye(k, undefined, { dtype: s!.dtype });
    const [row, column] = [unsqueeze(s!, -2), unsqueeze(s!, -1)];
    const apart = (x: Tensor) => {
      const gaps = row.sub(column).mul(row.add(column)).add(one);
      return skew(x).mul(one.mul(-1).add(1)).div(gaps);
    };
    const inner: Tensor[] = [];
    const whole: Tensor[] = [];
    if (ds) inner.push(one.mul(unsqueeze(ds, -1)));
    if (du) {
      const within = matmul(u!.T, du);
      inner.push(apart(within).mul(row));
      if (u!.shape.at(-2)! > k) whole.push(matmul(du.sub(matmul(u!, within)).div(row), vh!));
    }
    if (dvh) {
      const within = matmul(vh!, dvh.T);
      inner.push(apart(within).mul(column));
      if (vh!.shape.at(-1)! > k) whole.push(matmul(u!, dvh.sub(matmul(within.T, vh!)).div(column)));
    }
    whole.push(matmul(matmul(u!, sumOf(inner)), vh!));
    return [sumOf(whole)];
  },
});

const sumOf = (terms: readonly Tensor[]) => terms.reduce((sum, term) => sum.add(term));

/**
 * Singular values and vectors, `a = u diag(s) vh`. Each pair of vectors is determined up to its sign. A matrix with NaN or an infinity gives NaN.
 *
 * The gradient through `s` is always there; that through `u` and `vh` is only finite where the singular values are distinct and, for
 * matrices that aren't square, not 0, and only means something for losses that don't depend on the vectors' signs.
 *
 * @param a - `[…, M, N]`, float32 or float64
 * @throws {LinearAlgebraError} when the result is read, if the iteration didn't converge
 *
 * @example
 * const { u, s, vh } = svd(a);
 * const rank8 = u.slice(-1, 0, 8).mul(s.slice(-1, 0, 8).unsqueeze(-2)).matmul(vh.slice(-2, 0, 8));
 */
export function svd(a: Tensor): Svd {
  checkMatrices("svd", "a", a);
  const [u, s, vh] = svdOp([a], undefined);
  return { u, s, vh };
}
