import { defaultDevice, eye, type Tensor, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { expectClose, orthogonal, random } from "../test/matrices.js";
import { coupledNewton, inverseRoot, type RidgeMode } from "./inverse-root.js";

/** A batch of one matrix with these eigenvalues. */
function withEigenvalues(values: readonly number[]): Tensor {
  const q = orthogonal(1, values.length);
  return q
    .mul(tensor(Float64Array.from(values)))
    .matmul(q.T)
    .unsqueeze(0);
}

const powerOf = (x: Tensor, p: number): Tensor => (p === 1 ? x : x.matmul(powerOf(x, p - 1)));
const identity = (n: number) => eye(n, undefined, { dtype: "float64" }).unsqueeze(0);

const methods: [string, (x: Tensor, p: number, eps: number, ridge: RidgeMode) => Tensor][] = [
  ["inverseRoot", (x, p, eps, ridge) => inverseRoot(x, { p, eps, ridge })],
  ["coupledNewton", (x, p, eps, ridge) => coupledNewton(x, { p, eps, ridge }).root],
];

describe.each(methods)("%s", (_name, rootOf) => {
  it.each([1, 2, 3, 4, 6, 8])("to the power −p times the matrix is the identity (p = %i)", (p) => {
    const x = withEigenvalues([9, 4, 1, 0.5, 0.01]);
    expectClose(powerOf(rootOf(x, p, 0, "absolute"), p).matmul(x), identity(5), 1e-9);
  });

  it("of a singular matrix has the root of its ridge", () => {
    // Eigenvalues 4 + 4 · 1e-6 and 4 · 1e-6: inverse square roots 1/2 and 500, nearly.
    const x = withEigenvalues([4, 0, 0]);
    const root = rootOf(x, 2, 1e-6, "relative");
    const product = Array.from(root.matmul(x).dataSync());
    const trace = product[0]! + product[4]! + product[8]!;
    expect(trace).toBeCloseTo(4 / Math.sqrt(4 + 4e-6), 9);
    expect(Math.sqrt(root.square().sum().itemSync())).toBeCloseTo(Math.sqrt(2 * 500 ** 2 + 0.25), 4);
    expectClose(rootOf(x, 2, 4e-6, "absolute"), root, 1e-9);
  });

  it("of zero is that of the smallest scale, and of tiny statistics finite", () => {
    expectClose(rootOf(identity(3).mul(0), 4, 1e-6, "relative"), identity(3).mul((1e-6 * 1e-25) ** -0.25), 1e-9);
    const tiny = withEigenvalues([9e-24, 4e-24, 1e-24]);
    expectClose(rootOf(tiny, 2, 0, "absolute"), rootOf(tiny.mul(1e24), 2, 0, "absolute").mul(1e12), 1e-9);
  });

  it("takes each matrix of a batch alone", () => {
    const [a, b] = [withEigenvalues([1000, 1, 1e-3]), withEigenvalues([2, 2, 2])];
    const both = rootOf(
      tensor(Float64Array.of(...a.dataSync(), ...b.dataSync()), { shape: [2, 3, 3] }),
      4,
      1e-6,
      "relative",
    );
    // On a GPU a batch takes another algorithm than a single matrix: roundings of 1000 differ, beside an eigenvalue of 2e-3.
    expectClose(both.slice(0, 0, 1), rootOf(a, 4, 1e-6, "relative"), defaultDevice() === "cpu" ? 1e-11 : 1e-10);
    expectClose(both.slice(0, 1, 2), rootOf(b, 4, 1e-6, "relative"), 1e-11);
  });
});

describe("inverseRoot", () => {
  it("with a cutoff leaves what is below it out", () => {
    const x = withEigenvalues([4, 1, 1e-8]);
    const root = inverseRoot(x, { p: 2, eps: 1e-6, ridge: "cutoff" });
    expect(Math.sqrt(root.square().sum().itemSync())).toBeCloseTo(Math.sqrt(0.25 + 1), 9);
    expectClose(inverseRoot(x.mul(0), { p: 2, eps: 1e-6, ridge: "cutoff" }), x.mul(0), 0);
  });
});

describe("coupledNewton", () => {
  it("in float32 falls back to a larger ridge where the smaller one fails", () => {
    const q = random(3, [1, 40, 4]);
    const x = q.matmul(q.T).astype("float32");
    const options = { p: 4, eps: 1e-9, ridge: "relative", dtype: "float32" } as const;
    const [first, retried] = [coupledNewton(x, options), coupledNewton(x, { ...options, retries: 6 })];
    expect(retried.error.itemSync()).toBeLessThanOrEqual(0.05);
    expect(retried.error.itemSync()).toBeLessThanOrEqual(first.error.itemSync());
  });

  it("tells by its error what has no root", () => {
    const broken = withEigenvalues([1, 2, 3]).mul(Number.NaN);
    expect(coupledNewton(broken, { p: 2, eps: 0, ridge: "absolute" }).error.itemSync()).toBeNaN();
    const few = coupledNewton(withEigenvalues([1, 1e-9]), { p: 2, eps: 0, ridge: "absolute", maxIterations: 3 });
    expect(few.error.itemSync()).toBeGreaterThan(0.5);
  });
});
