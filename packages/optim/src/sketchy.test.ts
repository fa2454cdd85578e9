import { eigh, type Tensor, zeros } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { expectClose, random } from "../test/matrices.js";
import { type Sketch, updateSketch } from "./frequent-directions.js";
import { Sketchy, scaleByShampoo, scaleBySketchy, sketchy } from "./index.js";

const several = (count: number, shape: readonly number[]) => Array.from({ length: count }, (_, i) => random(i, shape));

function sketchOf(grads: readonly Tensor[], k: number, beta2: number): { sketch: Sketch; exact: Tensor } {
  const d = grads[0]!.shape[1]!;
  const make = (shape: readonly number[]) => zeros(shape, { dtype: "float64" });
  let sketch: Sketch = { u: make([1, d, k]), s: make([1, k]), tail: make([1]) };
  let exact = make([1, d, d]);
  for (const g of grads) {
    sketch = updateSketch(sketch, g, { beta2, tailDecay: "beta2", rankTol: 1e-6 });
    exact = exact.mul(beta2).add(g.matmul(g.T));
  }
  return { sketch, exact };
}

const covarianceOf = ({ u, s }: Sketch) => u.mul(s.square().unsqueeze(-2)).matmul(u.T);

describe("updateSketch", () => {
  it.each([
    [1, 3, 2],
    [0.9, 3, 2],
    [0.9, 5, 9],
    [1, 2, 1],
  ])("misses at most its tail: 0 ⪯ C − U s² Uᵀ ⪯ τ I (beta2 %f, rank %i, %i columns)", (beta2, k, width) => {
    const { sketch, exact } = sketchOf(several(12, [1, 7, width]), k, beta2);
    const { values } = eigh(exact.sub(covarianceOf(sketch)));
    const tail = sketch.tail.itemSync();
    expect(tail).toBeGreaterThan(0);
    const scale = exact.max().itemSync() * 1e-12;
    for (const x of values.dataSync()) {
      expect(x).toBeGreaterThanOrEqual(-scale);
      expect(x).toBeLessThanOrEqual(tail + scale);
    }
    // For plain sums the tail is at most the mean of the eigenvalues that were cut, for any of the cuts.
    if (beta2 < 1) return;
    const eigenvalues = Array.from(eigh(exact).values.dataSync(), Number).reverse();
    for (let j = 0; j <= k; j++) {
      const rest = eigenvalues.slice(j).reduce((sum, x) => sum + x, 0);
      expect(tail).toBeLessThanOrEqual(rest / (k + 1 - j) + scale);
    }
  });

  it("has orthonormal columns in descending order, and zero ones before it is full", () => {
    const { sketch } = sketchOf(several(2, [1, 7, 1]), 4, 0.9);
    const s = Array.from(sketch.s.dataSync());
    expect(s).toEqual([...s].sort((a, b) => b - a));
    expect(s.slice(2)).toEqual([0, 0]);
    const products = Array.from(sketch.u.T.matmul(sketch.u).dataSync());
    for (const [i, x] of products.entries()) {
      const unit = i % 5 === 0 && i < 10 ? 1 : 0;
      expect(Math.abs(x - unit)).toBeLessThan(1e-12);
    }
  });

  it("in float32 keeps what float64 keeps", () => {
    const grads = several(8, [1, 9, 3]);
    const wide = sketchOf(grads, 4, 0.9).sketch;
    const zero = (shape: readonly number[]) => zeros(shape);
    let narrow: Sketch = { u: zero([1, 9, 4]), s: zero([1, 4]), tail: zero([1]) };
    for (const g of grads)
      narrow = updateSketch(narrow, g.astype("float32"), { beta2: 0.9, tailDecay: "beta2", rankTol: 1e-6 });
    expectClose(covarianceOf(narrow), covarianceOf(wide), 1e-5);
    expectClose(narrow.tail, wide.tail, 1e-5);
  });
});

describe("scaleBySketchy", () => {
  it("with a full rank keeps Shampoo's statistics, new gradients weighing 1 instead of 1 − beta2", () => {
    const beta2 = 0.9;
    const options = { beta2, graft: "sgd", momentum: 0, mergeDims: 2, eps: 1e-4 } as const;
    const [low, full] = [scaleBySketchy({ ...options, rank: 64 }), scaleByShampoo(options)];
    const grads = several(6, [4, 6]);
    let [a, b] = [low.init(grads[0]!), full.init(grads[0]!)];
    for (const g of grads) {
      const [x, y] = [low.update(g, a, g), full.update(g, b, g)];
      [a, b] = [x.state, y.state];
      expectClose(x.updates, y.updates, 1e-10);
    }
    const sketches = (a as { factors: Record<string, { u: Tensor; s: Tensor; tail: Tensor }[][]> }).factors[""]![0]!;
    const { statistics } = (b as { factors: Record<string, { statistics: Tensor[][] }> }).factors[""]!;
    for (const [axis, { u, s, tail }] of sketches.entries()) {
      const covariance = u.mul(s.square()).matmul(u.T);
      expectClose(covariance.mul(1 - beta2), statistics[0]![axis]!, 1e-10);
      expect(tail.itemSync()).toBe(0);
    }
  });

  it("gives 0 for zero gradients, before and after others", () => {
    const transform = scaleBySketchy({ momentum: 0, mergeDims: 2, rank: 2 });
    const g = random(1, [4, 5]);
    const zero = g.mul(0);
    let state = transform.init(g);
    for (const [grad, expected] of [
      [zero, true],
      [g, false],
      [zero, true],
    ] as const) {
      const result = transform.update(grad, state, g);
      state = result.state;
      expect(Array.from(result.updates.dataSync()).every((x) => x === 0)).toBe(expected);
    }
  });

  it("refuses what is outside its domain", () => {
    expect(() => sketchy(0.1, { rank: 0 })).toThrow(
      "[scaleBySketchy] rank must be an integer of at least 1; received 0.",
    );
    expect(() => sketchy(0.1, { tailDecay: "none" as "beta2" })).toThrow("[scaleBySketchy] tailDecay must be one of");
  });
});

describe("Sketchy", () => {
  it.each([
    [32, 48, 8],
    [100, 20, 16],
    [768, 64, 32],
  ])("keeps (m + n + 2) k + 2 + 2mn numbers of a %i × %i matrix at rank %i", (m, n, k) => {
    const optimizer = new Sketchy({ w: new Float32Array(m * n) }, { shapes: { w: [m, n] }, mergeDims: 4, rank: k });
    expect(optimizer.stateBytes()).toBe(4 * ((m + n + 2) * k + 2 + 2 * m * n));
  });

  it("keeps no more directions of an axis than it has numbers, and of vectors graft and momentum", () => {
    const shapes = { embed: [65, 24], up: [64, 24], down: [24, 64], norm: [24] };
    const params = Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [name, new Float32Array(shape.reduce((n, d) => n * d, 1))]),
    );
    const optimizer = new Sketchy(params, { shapes, mergeDims: 1, rank: 32 });
    const axis = (d: number) => (d + 1) * Math.min(32, d) + 1;
    const matrix = (m: number, n: number) => axis(m) + axis(n) + 2 * m * n;
    expect(optimizer.stateBytes()).toBe(4 * (matrix(65, 24) + 2 * matrix(64, 24) + 2 * 24));
  });
});
