import { engine } from "@llmeff/native";
import { defineOp } from "../../autograd.js";
import { Tensor } from "../../tensor.js";
import { contiguous } from "../arguments.js";
import { matmul } from "../matmul.js";
import { eye } from "../ranges.js";
import { unsqueeze } from "../views.js";
import { checkSquare } from "./arguments.js";
import { symmetrized } from "./symmetrized.js";

/** `a = vectors · diag(values) · vectorsᵀ`. */
export interface Eigh {
  /** `[…, N]`, ascending. */
  values: Tensor;
  /** `[…, N, N]`, one in each column, in the order of `values`; orthonormal, each up to its sign. */
  vectors: Tensor;
}

const eighOp = defineOp<undefined, readonly [Tensor, Tensor]>({
  name: "eigh",
  forward(context, [a]) {
    const matrices = contiguous(a!);
    const values = Tensor.allocate(a!.dtype, a!.shape.slice(0, -1));
    const vectors = Tensor.allocate(a!.dtype, a!.shape);
    engine().op.eigh(matrices.handle, values.handle, vectors.handle);
    context.save(values, vectors);
    return [values, vectors];
  },
  // da = V (diag(dλ) + F ∘ Vᵀ dV) Vᵀ with F[i, j] = 1 / (λ[j] − λ[i]) off the diagonal and 0 on it.
  backward({ saved: [values, vectors] }, [dvalues, dvectors]) {
    const one = eye(values!.shape.at(-1)!, undefined, { dtype: values!.dtype });
    const parts: Tensor[] = [];
    if (dvalues !== null) parts.push(one.mul(unsqueeze(dvalues, -1)));
    if (dvectors !== null) {
      const gaps = unsqueeze(values!, -2).sub(unsqueeze(values!, -1)).add(one);
      parts.push(matmul(vectors!.T, dvectors).mul(one.mul(-1).add(1)).div(gaps));
    }
    const inner = parts.length === 1 ? parts[0]! : parts[0]!.add(parts[1]!);
    return [symmetrized(matmul(matmul(vectors!, inner), vectors!.T))];
  },
});

/**
 * Eigenvalues and eigenvectors of symmetric matrices, `a = V diag(λ) Vᵀ`; only the lower triangles are read.
 *
 * Eigenvalues are exact for a matrix within about `n · eps · ‖a‖` of `a`, whatever their sizes. The gradient is symmetric. That through `values`
 * is always there; that through `vectors` has the gaps between eigenvalues in its denominators: it isn't finite where two are equal, and only means something for
 * losses that don't depend on the vectors' signs.
 *
 * A matrix with NaN or an infinity gives NaN.
 *
 * @param a - `[…, N, N]`, float32 or float64
 * @throws {ShapeError} if the matrices aren't square
 * @throws {LinearAlgebraError} when the result is read, if the iteration didn't converge
 *
 * @example
 * const { values, vectors } = eigh(a);
 * const root = vectors.mul(values.sqrt().unsqueeze(-2)).matmul(vectors.T);
 */
export function eigh(a: Tensor): Eigh {
  checkSquare("eigh", "a", a);
  const [values, vectors] = eighOp([a], undefined);
  return { values, vectors };
}
