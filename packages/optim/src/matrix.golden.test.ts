/** The rules of matrices and the online convex suite of optimizers.json, and its units of what they are made of. */
import { readFileSync } from "node:fs";
import { scope, type Tensor, tensor } from "@llmeff/tensor";
import { expect, it } from "vitest";
import { describeGolden } from "../../../test/golden.js";
import { expectGolden, typedArray } from "../test/golden-cases.js";
import { type MatrixCase, matrixCases } from "../test/matrix-cases.js";
import { type Sketch, updateSketch } from "./frequent-directions.js";
import { applyUpdates, type Parameter } from "./index.js";
import { coupledNewton, inverseRoot } from "./inverse-root.js";
import { mergeSmallDims } from "./merge-dims.js";
import { newtonSchulz } from "./newton-schulz.js";

interface Units {
  frequent_directions: {
    d: number;
    rank: number;
    width: number;
    beta2: number;
    tail_decay: "beta2" | "sqrt_beta2";
    rtol: number;
    steps: { G: number[]; sketch_cov: number[]; deflated_eigs: number[]; tail: number }[];
  }[];
  inverse_root: { n: number; p: number; eps: number; M: number[]; out: number[]; rtol: number }[];
  newton_schulz: { shape: number[]; G: number[]; out: number[]; rtol: number }[];
  merge_small_dims: { shape: number[]; max_dim: number; out: number[] }[];
}

const f64 = (values: readonly number[], shape: readonly number[]) => tensor(Float64Array.from(values), { shape });

/** `max|x − ref| ≤ rtol·max|ref| + 1e-12` */
function expectUnit(got: Tensor, want: readonly number[], rtol: number): void {
  const values = Array.from(got.dataSync());
  expect(values).toHaveLength(want.length);
  const limit = rtol * Math.max(...want.map(Math.abs)) + 1e-12;
  for (const [i, x] of values.entries()) expect(Math.abs(x - want[i]!), `element ${i}`).toBeLessThanOrEqual(limit);
}

/** Takes all steps of a case with an optimizer of `make`'s arrays. */
function replay<P extends Parameter>(
  golden: MatrixCase,
  make: (values: readonly number[], shape: readonly number[]) => P,
  read: (array: P) => ArrayLike<number>,
): void {
  const { problem } = golden;
  const record = (arrays: readonly number[][]): Record<string, P> =>
    Object.fromEntries(arrays.map((values, i) => [`tensor${i}`, make(values, problem.shapes[i]!)]));
  const params = record(problem.params0);
  const shapes = Object.fromEntries(problem.shapes.map((shape, i) => [`tensor${i}`, shape]));
  const optimizer = golden.make(params, shapes);
  for (const [i, grads] of problem.grads.entries()) {
    optimizer.step(record(grads));
    expectGolden(golden, i + 1, Object.values(params).map(read));
  }
}

describeGolden("optimizers.json", (path) => {
  const cases = matrixCases(path);
  const { units } = JSON.parse(readFileSync(path, "utf8")) as { units: Units };

  it.each(cases)("$id: transform", (golden) => {
    const { problem, dtype } = golden;
    const tree = (arrays: readonly number[][]): Tensor[] =>
      arrays.map((values, i) => tensor(typedArray(dtype, values), { shape: problem.shapes[i]! }));
    const transform = golden.transform();
    let params = tree(problem.params0);
    let state = transform.init(params);
    for (const [i, grads] of problem.grads.entries()) {
      ({ params, state } = scope(() => {
        const result = transform.update(tree(grads), state, params);
        return { params: applyUpdates(params, result.updates), state: result.state };
      }));
      expectGolden(
        golden,
        i + 1,
        params.map((x) => x.dataSync()),
      );
    }
  });

  it.each(cases)("$id: optimizer, tensors", (golden) => {
    replay(
      golden,
      (values, shape) => tensor(typedArray(golden.dtype, values), { shape }),
      (x: Tensor) => x.dataSync(),
    );
  });

  it.each(cases)("$id: optimizer, typed arrays", (golden) => {
    replay(
      golden,
      (values) => typedArray(golden.dtype, values),
      (x) => x,
    );
  });

  it.each(units.frequent_directions)("Frequent Directions, $rank of $d, beta2 $beta2, tail by $tail_decay", (unit) => {
    const { d, rank, width, beta2, rtol } = unit;
    const tailDecay = unit.tail_decay === "beta2" ? "beta2" : "sqrtBeta2";
    let sketch: Sketch = {
      u: f64(new Array(d * rank).fill(0), [1, d, rank]),
      s: f64(new Array(rank).fill(0), [1, rank]),
      tail: f64([0], [1]),
    };
    for (const step of unit.steps) {
      sketch = updateSketch(sketch, f64(step.G, [1, d, width]), { beta2, tailDecay, rankTol: 1e-6 });
      const scaled = sketch.u.mul(sketch.s.unsqueeze(-2));
      expectUnit(scaled.matmul(scaled.T), step.sketch_cov, rtol);
      expectUnit(sketch.s.square(), step.deflated_eigs, rtol);
      expectUnit(sketch.tail, [step.tail], rtol);
    }
  });

  it.each(units.inverse_root)("inverse root $p of $n × $n", ({ n, p, eps, M, out, rtol }) => {
    const matrix = f64(M, [1, n, n]);
    expectUnit(inverseRoot(matrix, { p, eps, ridge: "relative" }), out, rtol);
    const { root, error } = coupledNewton(matrix, { p, eps, ridge: "relative" });
    expectUnit(root, out, rtol);
    expect(error.itemSync()).toBeLessThanOrEqual(1e-12);
  });

  it.each(units.newton_schulz)("Newton–Schulz of $shape", ({ shape, G, out, rtol }) => {
    expectUnit(newtonSchulz(f64(G, shape)), out, rtol);
  });

  it.each(units.merge_small_dims)("$shape merged up to $max_dim", ({ shape, max_dim, out }) => {
    expect(mergeSmallDims(shape, max_dim)).toEqual(out);
  });
});
