/** First-order rules by hand, and what is particular to one of them. */
import { tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import {
  Adafactor,
  Adagrad,
  Lamb,
  Lion,
  lamb,
  NAdamW,
  type Optimizer,
  RMSprop,
  SGD,
  SM3,
  scaleByTrustRatio,
} from "./index.js";

const steps = (make: (params: { p: Float64Array }) => Optimizer<Float64Array>, p: number, ...grads: number[]) => {
  const params = { p: Float64Array.of(p) };
  const optimizer = make(params);
  for (const g of grads) optimizer.step({ p: Float64Array.of(g) });
  return params.p[0]!;
};

describe("by hand", () => {
  it.each<[string, number, number]>([
    // b = 2, p = 1 − 0.1·2 = 0.8; b = 0.5·2 + 0.75·4 = 4, p = 0.8 − 0.4
    [
      "SGD with dampening",
      steps((p) => new SGD(p, { learningRate: 0.1, momentum: 0.5, dampening: 0.25 }), 1, 2, 4),
      0.4,
    ],
    // b = 2, p = 1 − 0.1·(2 + 0.5·2)
    ["Nesterov's momentum", steps((p) => new SGD(p, { learningRate: 0.1, momentum: 0.5, nesterov: true }), 1, 2), 0.7],
    // 1·(1 − 0.1·0.5) − 0.1·2
    [
      "SGD with decoupled decay",
      steps((p) => new SGD(p, { learningRate: 0.1, weightDecay: 0.5, decoupled: true }), 1, 2),
      0.75,
    ],
    // 1 − 0.1·(2 + 0.5·1)
    ["SGD with L2 decay", steps((p) => new SGD(p, { learningRate: 0.1, weightDecay: 0.5 }), 1, 2), 0.75],
    // v = 9, p = 2 − 3/3 = 1; v = 25, p = 1 − 0.5·4/5
    [
      "Adagrad with decay of its rate",
      steps((p) => new Adagrad(p, { learningRate: 1, lrDecay: 1, eps: 0 }), 2, 3, 4),
      0.6,
    ],
    // v = 0.25·16 = 4, p = 1 − 0.1·4/(2 + 2)
    ["RMSprop", steps((p) => new RMSprop(p, { learningRate: 0.1, alpha: 0.75, eps: 2 }), 1, 4), 0.9],
    // a = 2, v = 8, v̂ = 8 − 4: 1 − 0.1·4/(2 + 2)
    [
      "centered RMSprop",
      steps((p) => new RMSprop(p, { learningRate: 0.1, alpha: 0.5, eps: 2, centered: true }), 1, 4),
      0.9,
    ],
    // m = 0.5·2 = 1, m̂ = (0.5·1 + 0.5·2)/0.5 = 3, v̂ = 4: 1 − 0.1·3/2
    [
      "NAdamW of AlgoPerf",
      steps((p) => new NAdamW(p, { learningRate: 0.1, beta1: 0.5, beta2: 0.5, eps: 0, weightDecay: 0 }), 1, 2),
      0.85,
    ],
    // c = 0.9·0 + 0.1·3 > 0: 1 − 0.1 − 0.1·0.5·1; m = 0.5·3 = 1.5; c = 0.9·1.5 − 0.1·14 < 0: 0.85·0.95 + 0.1
    ["Lion", steps((p) => new Lion(p, { learningRate: 0.1, beta2: 0.5, weightDecay: 0.5 }), 1, 3, -14), 0.9075],
    // r = 1, ‖p‖/‖r‖ = 2: 2 − 0.1·2·1
    ["Lamb", steps((p) => new Lamb(p, { learningRate: 0.1, eps: 0 }), 2, 5), 1.8],
    // w = 1: V = 16, u = 1, ρ = 0.1, α = 2·0.1
    ["Adafactor", steps((p) => new Adafactor(p, { learningRate: 0.1 }), 2, 4), 1.8],
    // ν = 16, u = 1, m = 1: 2 − 0.1
    ["SM3", steps((p) => new SM3(p, { learningRate: 0.1, beta1: 0, eps: 1e-30 }), 2, 4), 1.9],
  ])("%s", (_name, got, want) => {
    expect(got).toBeCloseTo(want, 12);
  });
});

describe("RMSprop", () => {
  it("stays finite where equal gradients leave a variance of rounding errors", () => {
    const p = Float32Array.from({ length: 1000 }, () => 1);
    const optimizer = new RMSprop({ p }, { centered: true, alpha: 0.5, eps: 1, learningRate: 1e-3 });
    for (let step = 0; step < 60; step++) optimizer.step({ p: p.map((_, i) => 0.1 + i / 777) });
    for (const x of p) expect(Number.isFinite(x)).toBe(true);
  });
});

describe("SM3", () => {
  it("shares its sums along rows and columns", () => {
    // ν = g² = [[1, 4], [9, 16]] at first: rows (4, 16), columns (9, 16). Then ν = min(row, column) + g² with g = 0.
    const p = new Float64Array(4);
    const optimizer = new SM3({ p }, { shapes: { p: [2, 2] }, learningRate: 1, beta1: 0 });
    optimizer.step({ p: Float64Array.of(1, 2, 3, 4) });
    const { tensors } = optimizer.stateDict();
    expect(tensors["p.0.axes.0"]).toEqual(Float64Array.of(4, 16));
    expect(tensors["p.0.axes.1"]).toEqual(Float64Array.of(9, 16));
    optimizer.step({ p: new Float64Array(4) });
    expect(tensors["p.0.axes.0"]).toEqual(Float64Array.of(4, 16));
    expect(tensors["p.0.axes.1"]).toEqual(Float64Array.of(9, 16));
    // The least of each pair: [[4, 4], [9, 16]] + 1
    optimizer.step({ p: Float64Array.of(1, 1, 1, 1) });
    expect(tensors["p.0.axes.0"]).toEqual(Float64Array.of(5, 17));
  });
});

describe("Adafactor", () => {
  it("keeps rows and columns of a matrix, and what is too small to factor whole", () => {
    const names = (minFactoredDim: number) =>
      Object.keys(
        new Adafactor({ p: new Float32Array(12) }, { shapes: { p: [3, 4] }, minFactoredDim }).stateDict().tensors,
      );
    expect(names(0)).toEqual(["p.0.rows", "p.0.columns"]);
    expect(names(4)).toEqual(["p.0.v"]);
    expect(new Adafactor({ p: new Float32Array(12) }, { shapes: { p: [3, 4] } }).stateBytes()).toBe(7 * 4);
  });
});

describe("scaleByTrustRatio", () => {
  it("leaves tensors alone where a norm is 0, and passes NaN on", () => {
    const of = (g: number[], p: number[]) =>
      Array.from(scaleByTrustRatio().update(tensor(g), {}, tensor(p)).updates.dataSync());
    expect(of([3, 4], [6, 8])).toEqual([6, 8]);
    expect(of([3, 4], [0, 0])).toEqual([3, 4]);
    expect(of([0, 0], [6, 8])).toEqual([0, 0]);
    expect(of([1e-30, 0], [1e-30, 0])[0]! / 1e-30).toBeCloseTo(1, 6); // the product of the norms is 0 in float32
    expect(of([Number.NaN, 1], [1, 1])).toEqual([Number.NaN, Number.NaN]);
  });
});

describe("lamb", () => {
  it("decays only what its mask chooses", () => {
    const tx = lamb(0.1, { weightDecay: 0.5, mask: (path) => path === "a" });
    const zero = { a: tensor([0, 0]), b: tensor([0, 0]) };
    const { updates } = tx.update(zero, tx.init(zero), { a: tensor([3, 4]), b: tensor([3, 4]) });
    expect(Array.from(updates.b.dataSync(), Math.abs)).toEqual([0, 0]);
    expect(updates.a.dataSync()[0]).toBeCloseTo(-0.3, 6); // r = p/2, as long as p after the ratio
  });
});
