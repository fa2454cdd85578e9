import { engine } from "@llmeff/native";
import { defineOp } from "../../autograd.js";
import { Tensor } from "../../tensor.js";
import { contiguous } from "../arguments.js";
import { concat } from "../concat.js";
import { tril } from "../masks.js";
import { matmul } from "../matmul.js";
import { slice } from "../slice.js";
import { checkMatrices } from "./arguments.js";
import { triangularSolve } from "./triangular-solve.js";

/** `a = q · r`, reduced: `K = min(M, N)`. */
export interface Qr {
  /** `[…, M, K]`, with orthonormal columns. */
  q: Tensor;
  /** `[…, K, N]`, upper triangular. */
  r: Tensor;
}

/** Gradient of a square or tall `a` of full rank: `(dq + q·sym(m)) r⁻ᵀ`, where `m = r drᵀ − dqᵀ q` and sym mirrors the lower triangle. */
function dSquareOrTall(q: Tensor, r: Tensor, dq: Tensor | null, dr: Tensor | null): Tensor {
  const byR = dr && matmul(r, dr.T);
  const byQ = dq && matmul(dq.T, q);
  const m = byR && byQ ? byR.sub(byQ) : (byR ?? byQ!.neg());
  const inner = matmul(q, tril(m).add(tril(m, -1).T));
  return triangularSolve(r, dq ? dq.add(inner) : inner, { upper: true, transpose: true, left: false });
}

const qrOp = defineOp<undefined, readonly [Tensor, Tensor]>({
  name: "qr",
  forward(context, [a]) {
    const [m, n] = [a!.shape.at(-2)!, a!.shape.at(-1)!];
    const [lead, k] = [a!.shape.slice(0, -2), Math.min(m, n)];
    const matrices = contiguous(a!);
    const q = Tensor.allocate(a!.dtype, [...lead, m, k]);
    const r = Tensor.allocate(a!.dtype, [...lead, k, n]);
    engine().op.qr(matrices.handle, q.handle, r.handle);
    context.save(a!, q, r);
    return [q, r];
  },
  backward({ saved: [a, q, r] }, [dq, dr]) {
    const [m, n] = [a!.shape.at(-2)!, a!.shape.at(-1)!];
    if (m >= n) return [dSquareOrTall(q!, r!, dq, dr)];
    // Of a = [x y] with a square x: q is that of x, and r = [r of x, qᵀ y].
    const left = (x: Tensor) => slice(x, -1, 0, m);
    const right = (x: Tensor) => slice(x, -1, m, n);
    const viaY = dr && matmul(right(a!), right(dr).T);
    const dqAll = dq && viaY ? dq.add(viaY) : (dq ?? viaY);
    const dx = dSquareOrTall(q!, left(r!), dqAll, dr && left(dr));
    const dy = dr ? matmul(q!, right(dr)) : right(a!).mul(0);
    return [concat([dx, dy], -1)];
  },
});

/**
 * QR factors by Householder reflections, `a = q r` with `qᵀ q = 1` and an upper triangular `r`. The diagonal of `r` may be negative; it is 0
 * to rounding where a column depends on those before it. A matrix with NaN or an infinity gives NaN.
 *
 * Differentiable where the first `K` columns are independent.
 *
 * @param a - `[…, M, N]`, float32 or float64
 *
 * @example
 * const { q } = qr(randomNormal({ seed: 1 }, [512, 64])); // 64 random orthonormal columns
 */
export function qr(a: Tensor): Qr {
  checkMatrices("qr", "a", a);
  const [q, r] = qrOp([a], undefined);
  return { q, r };
}
