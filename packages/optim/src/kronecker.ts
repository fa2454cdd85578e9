/**
 * Products of tensors with one matrix per axis, on batches `[N, d1, …, dK]`: the arithmetic of all Kronecker-factored methods. Axes are counted
 * without the batch's.
 */
import { matmul, movedim, type Tensor, transpose } from "@llmeff/tensor";

/** `mat_i(x)`: axis i as rows, the others in order as columns, `[N, d_i, …]`. Of matrices a view. */
export function unfold(x: Tensor, axis: number): Tensor {
  if (x.rank === 3) return axis === 0 ? x : transpose(x);
  return movedim(x, axis + 1, 1).reshape([x.shape[0]!, x.shape[axis + 1]!, -1]);
}

/** `mat_i(x) mat_i(x)ᵀ`, `[N, d_i, d_i]`. */
export function gramOf(x: Tensor, axis: number): Tensor {
  const rows = unfold(x, axis);
  return matmul(rows, transpose(rows));
}

/** Undoes `unfold` of an array of shape `[N, d1, …, dK]`; `rows` may have another number than `d_i`. */
export function fold(rows: Tensor, shape: readonly number[], axis: number): Tensor {
  if (shape.length === 3) return axis === 0 ? rows : transpose(rows);
  const others = shape.slice(1).toSpliced(axis, 1);
  return movedim(rows.reshape([shape[0]!, rows.shape[1]!, ...others]), 1, axis + 1);
}

/** `x ×_i M`: `out[…, a, …] = Σ_b M[a, b] x[…, b, …]` along axis i, for `M` `[N, r, d_i]`. */
export function modeProduct(x: Tensor, matrix: Tensor, axis: number): Tensor {
  // Of matrices the second axis is multiplied from the right, whose result lies in row-major order.
  if (x.rank === 3 && axis === 1) return matmul(x, transpose(matrix));
  return fold(matmul(matrix, unfold(x, axis)), x.shape, axis);
}

/** The product with a matrix on each axis that has one. */
export function modeProducts(x: Tensor, matrices: readonly (Tensor | undefined)[]): Tensor {
  return matrices.reduce<Tensor>((y, matrix, axis) => (matrix ? modeProduct(y, matrix, axis) : y), x);
}
