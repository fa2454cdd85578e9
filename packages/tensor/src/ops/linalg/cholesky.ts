import { engine } from "@llmeff/native";
import { defineOp } from "../../autograd.js";
import { scope } from "../../scope.js";
import { Tensor } from "../../tensor.js";
import { contiguous } from "../arguments.js";
import { tril } from "../masks.js";
import { matmul } from "../matmul.js";
import { eye } from "../ranges.js";
import { checkSquare } from "./arguments.js";
import { symmetrized } from "./symmetrized.js";
import { triangularSolve } from "./triangular-solve.js";

const choleskyOp = defineOp<undefined>({
  name: "cholesky",
  forward(context, [a]) {
    const matrices = contiguous(a!);
    const l = Tensor.allocate(a!.dtype, a!.shape);
    engine().op.cholesky(matrices.handle, l.handle);
    context.save(l);
    return l;
  },
  // da = l⁻ᵀ Φ(lᵀ dl) l⁻¹, symmetrized; Φ takes the lower triangle with half of the diagonal.
  backward({ saved: [l] }, dl) {
    const half = eye(l!.shape.at(-1)!, undefined, { dtype: l!.dtype }).mul(-0.5).add(1);
    const inner = tril(matmul(l!.T, dl)).mul(half);
    const byLeft = triangularSolve(l!, inner, { transpose: true });
    return [symmetrized(triangularSolve(l!, byLeft, { left: false }))];
  },
});

/**
 * The Cholesky factor `l` of symmetric positive definite matrices: lower triangular with `l lᵀ = a`. Only the lower triangles of `a` are read; the
 * gradient is symmetric. A matrix with NaN or an infinity gives NaN.
 *
 * @param a - `[…, N, N]`, float32 or float64
 * @throws {ShapeError} if the matrices aren't square
 * @throws {LinearAlgebraError} when the result is read, if a matrix isn't positive definite: its number in the batch and the first pivot that isn't positive
 */
export function cholesky(a: Tensor): Tensor {
  checkSquare("cholesky", "a", a);
  return choleskyOp([a], undefined);
}

/**
 * Solves `a x = b` by the Cholesky factor `l` of `a`: `x = l⁻ᵀ l⁻¹ b`.
 *
 * @param l - `[…, N, N]`, of `cholesky`
 * @param b - `[…, N, K]`; leading axes broadcast
 */
export function choleskySolve(l: Tensor, b: Tensor): Tensor {
  return scope(() => triangularSolve(l, triangularSolve(l, b), { transpose: true }));
}
