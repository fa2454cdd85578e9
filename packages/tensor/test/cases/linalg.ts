/** Factorizations, which aren't for 16 bits: half-precision inputs are factored in float32. */
import { accumulationDType } from "../../src/dtype.js";
import type { Tensor } from "../../src/index.js";
import * as t from "../../src/index.js";
import type { OpCase } from "../op-cases.js";

const wide = (x: Tensor) => x.astype(accumulationDType(x.dtype));
/** 2, 4, 6, … */
const grades = (n: number, dtype: t.DType) => t.arange(n).add(1).mul(2).astype(dtype);
/** Symmetric, with eigenvalues that lie apart: near 2, 4, 6, … */
const symmetric = (x: Tensor) => {
  const y = wide(x);
  const n = y.shape.at(-1)!;
  return y
    .add(y.T)
    .mul(0.25)
    .add(t.eye(n, n, { dtype: y.dtype }).mul(grades(n, y.dtype)));
};
/** `[…, M, N]` with singular values that lie apart. */
const graded = (x: Tensor) => {
  const y = wide(x);
  const [m, n] = [y.shape.at(-2)!, y.shape.at(-1)!];
  return y.mul(0.5).add(t.eye(m, n, { dtype: y.dtype }).mul(grades(n, y.dtype)));
};
/** What does not depend on the signs of vectors: a weighted sum of their projections. */
const projections = (vectors: Tensor) => vectors.mul(grades(vectors.shape.at(-1)!, vectors.dtype)).matmul(vectors.T);

const solve = (name: string, inputs: number[][], options: t.TriangularSolveOptions): OpCase => ({
  name: `triangularSolve, ${name}`,
  inputs,
  compute: (l, b) => t.triangularSolve(symmetric(l!), wide(b!), options),
});
const square = [4, 4];
const batch = [2, 4, 4];

export const linalgCases: OpCase[] = [
  { name: "eigh, values", inputs: [batch], compute: (x) => t.eigh(symmetric(x!)).values },
  { name: "eigh, vectors", inputs: [batch], compute: (x) => projections(t.eigh(symmetric(x!)).vectors) },
  {
    name: "eigh, a function of the matrix",
    inputs: [[5, 5]],
    compute: (x) => {
      const { values, vectors } = t.eigh(symmetric(x!));
      return vectors.mul(t.rsqrt(values).unsqueeze(-2)).matmul(vectors.T);
    },
  },
  { name: "svd, values", inputs: [[2, 4, 3]], compute: (x) => t.svd(graded(x!)).s },
  { name: "svd of a tall matrix", inputs: [[5, 3]], compute: (x) => projections(t.svd(graded(x!)).u) },
  { name: "svd of a wide matrix", inputs: [[3, 5]], compute: (x) => projections(t.svd(graded(x!)).vh.T) },
  {
    name: "svd of a square matrix",
    inputs: [batch],
    compute: (x) => {
      const { u, s, vh } = t.svd(graded(x!));
      return u.mul(s.square().unsqueeze(-2)).matmul(vh);
    },
  },
  { name: "qr of a tall matrix", inputs: [[2, 5, 3]], compute: (x) => t.qr(graded(x!)).q },
  { name: "qr of a square matrix", inputs: [square], compute: (x) => t.qr(graded(x!)).r },
  {
    name: "qr of a wide matrix",
    inputs: [[3, 5]],
    compute: (x) => {
      const { q, r } = t.qr(graded(x!));
      return t.concat([q, r], 1);
    },
  },
  { name: "qr of a wide matrix, q alone", inputs: [[3, 5]], compute: (x) => t.qr(graded(x!)).q },
  { name: "cholesky", inputs: [batch], compute: (x) => t.cholesky(symmetric(x!)) },
  {
    name: "choleskySolve",
    inputs: [square, [4, 2]],
    compute: (x, b) => t.choleskySolve(t.cholesky(symmetric(x!)), wide(b!)),
  },
  solve("lower", [batch, [4, 3]], {}),
  solve("upper, transposed", [square, [4, 3]], { upper: true, transpose: true }),
  solve("right", [square, [2, 3, 4]], { left: false }),
  solve("right, transposed", [square, [3, 4]], { left: false, transpose: true }),
];
