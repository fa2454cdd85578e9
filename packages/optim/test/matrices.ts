/** Small matrices for tests of the rules of matrices. */
import { qr, randomNormal, type Tensor } from "@llmeff/tensor";
import { expect } from "vitest";

/** Standard normal numbers in float64. */
export const random = (stream: number, shape: readonly number[]): Tensor =>
  randomNormal({ seed: 5, stream }, shape, { dtype: "float64" });

/** A random orthogonal matrix. */
export const orthogonal = (stream: number, n: number): Tensor => qr(random(stream, [n, n])).q;

/** Every element within `tolerance` times the largest of `want`. */
export function expectClose(got: Tensor, want: Tensor, tolerance: number): void {
  expect(got.shape).toEqual(want.shape);
  const [a, b] = [got, want].map((x) => Array.from(x.astype("float64").dataSync())) as [number[], number[]];
  const limit = tolerance * b.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  for (const [i, x] of a.entries()) expect(Math.abs(x - b[i]!), `element ${i}`).toBeLessThanOrEqual(limit);
}
