/** What Sketchy's studies compute besides training: spectra, formulas of state, streams of examples, regret. */
import { onlineConvex, Shampoo, Sketchy } from "@llmeff/optim";
import { randomNormal, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";

const lib = "../bench/evidence/lib";
const { KroneckerFactors } = await import(`${lib}/kronecker-factors.mjs`);
const { bestInHindsight } = await import(`${lib}/logistic-optimum.mjs`);
const { learnOnline } = await import(`${lib}/online-learning.mjs`);
const { spectrumFacts, spectrumPoints } = await import(`${lib}/spectrum.mjs`);
const { shampooNumbers, sketchyNumbers } = await import(`${lib}/state-formulas.mjs`);
const { streams } = await import(`${lib}/streams.mjs`);

describe("spectrumFacts", () => {
  it("tells shares of the trace and tr/λ₁", () => {
    // Trace 16: the largest two of eight have 10/16, all of them everything; 16/8 = 2.
    const facts = spectrumFacts([8, 2, 1, 1, 1, 1, 1, 1]);
    expect(facts).toMatchObject({ size: 8, topQuarter: 0.625, intrinsicDimension: 2 });
    expect(facts.top).toEqual([1, 1, 1, 1, 1, 1]);
  });

  it("counts rounding below 0 as 0", () => {
    expect(spectrumFacts([1, 0, 0, -1e-3]).topQuarter).toBe(1);
  });
});

describe("spectrumPoints", () => {
  it("has the first and the last eigenvalue, each number once", () => {
    const points: [number, number][] = spectrumPoints(Float64Array.from({ length: 100 }, (_, i) => 100 - i));
    expect(points[0]).toEqual([1, Number((100 / 5050).toPrecision(5))]);
    expect(points.at(-1)).toEqual([100, Number((1 / 5050).toPrecision(5))]);
    expect(new Set(points.map(([i]) => i)).size).toBe(points.length);
  });
});

describe("KroneckerFactors", () => {
  it("averages G Gᵀ and Gᵀ G, whose nonzero eigenvalues are the squares of G's singular values", async () => {
    const factors = new KroneckerFactors(0.75);
    // Of each gradient a quarter is new: diag(3, 1)² / 4 and then 3/4 of that and a quarter of diag(1, 2)².
    factors.add({ a: tensor([[3, 0, 0], [0, 1, 0]]), b: tensor([[1, 0], [0, 0]]) }); // biome-ignore format: matrices
    factors.add({ a: tensor([[1, 0, 0], [0, 2, 0]]), b: tensor([[0, 0], [0, 1]]) }); // biome-ignore format: matrices
    const found = [];
    for await (const { name, side, values } of factors.spectra()) found.push([name, side, Array.from(values)]);
    factors.dispose();
    const [large, small] = [(3 / 16) * 9 + 1 / 4, 3 / 16 + (1 / 4) * 4];
    const close = (...values: number[]) => values.map((x) => expect.closeTo(x, 6));
    expect(found).toEqual([
      ["a", "outputs", close(large, small)],
      ["a", "inputs", close(large, small, 0)],
      ["b", "outputs", close(1 / 4, 3 / 16)],
      ["b", "inputs", close(1 / 4, 3 / 16)],
    ]);
  });
});

describe("formulas of state", () => {
  const shapes = [[65, 24], [64, 24], [24, 64], [24]]; // biome-ignore format: shapes
  const params = () => Object.fromEntries(shapes.map((shape, i) => [`p${i}`, randomNormal({ seed: i }, shape)]));

  it.each([4, 24, 32, 100])("are what Sketchy keeps at rank %i", (rank) => {
    const optimizer = new Sketchy(params(), { mergeDims: 1, rank });
    expect(optimizer.stateBytes()).toBe(4 * sketchyNumbers(shapes, rank));
  });

  it("are what Shampoo keeps", () => {
    expect(new Shampoo(params(), { mergeDims: 1 }).stateBytes()).toBe(4 * shampooNumbers(shapes));
  });
});

describe("streams", () => {
  const covariance = (x: Float32Array, size: number) => {
    const count = x.length / size;
    const at = (i: number, j: number) => {
      let sum = 0;
      for (let t = 0; t < count; t++) sum += x[t * size + i]! * x[t * size + j]!;
      return sum / count;
    };
    return at;
  };

  it("of normal examples have the trace that was asked for, a rotation of one spectrum", async () => {
    const { x, y, size } = await streams.decaying.make({ part: "report", seed: 1, count: 2000 });
    const at = covariance(x, size);
    let trace = 0;
    let squares = 0;
    for (let i = 0; i < size; i++) {
      trace += at(i, i);
      for (let j = 0; j < size; j++) squares += at(i, j) ** 2;
    }
    const eigenvalues = Array.from({ length: size }, (_, i) => (i + 1) ** -2);
    const scale = size / eigenvalues.reduce((sum, value) => sum + value, 0);
    // Their standard errors are about 2.5 % and 5 %: the first eigenvalue has most of both.
    expect(Math.abs(trace / size - 1)).toBeLessThan(0.1);
    expect(Math.abs(squares / eigenvalues.reduce((sum, value) => sum + (value * scale) ** 2, 0) - 1)).toBeLessThan(0.2);
    const ones = y.reduce((sum: number, label: number) => sum + label, 0);
    expect(Math.abs(ones / y.length - 0.5)).toBeLessThan(0.05);
  });

  it("are tuned on other examples than they report on", async () => {
    const [tune, report, again] = await Promise.all(
      ["tune", "report", "report"].map((part) => streams.mnist.make({ part, seed: 1, count: 50 })),
    );
    expect(report.x).toEqual(again.x);
    const rows = ({ x, size }: { x: Float32Array; size: number }) =>
      Array.from({ length: 50 }, (_, t) => x.slice(t * size, (t + 1) * size).join());
    const seen = new Set(rows(tune));
    expect(rows(report).some((row) => seen.has(row))).toBe(false);
    expect(report.x[report.size - 1]).toBe(1);
  });
});

describe("learnOnline", () => {
  it("counts the loss before the step, and leaves a diverged learner alone", async () => {
    // Examples 1, 1 with labels 1, 1: losses ln 2, then ln(1 + e^(−w)) with w = lr · 1/2 of OGD's first step.
    const stream = { x: Float32Array.of(1, 1), y: Float32Array.of(1, 1), size: 1 };
    const group = { transform: onlineConvex(1, { algorithm: "ogd" }), rates: [0.5, 1e9] };
    const [[one, diverged]] = await learnOnline([group], stream, 2);
    expect(one.losses).toEqual([Math.LN2, Math.LN2 + Math.log1p(Math.exp(-0.25))].map((x) => expect.closeTo(x, 6)));
    // A logit of 0 counts as the answer 0.
    expect(one.mistakes).toEqual([1, 1]);
    expect(diverged.losses).toEqual([expect.closeTo(Math.LN2, 6), Number.POSITIVE_INFINITY]);
  });
});

describe("bestInHindsight", () => {
  it("finds the logarithm of the odds of a constant feature", async () => {
    // Three ones in four: the best logit is ln 3, its loss the entropy of (3/4, 1/4).
    const stream = { x: new Float32Array(8).fill(1), y: Float32Array.of(1, 1, 0, 1, 1, 1, 0, 1), size: 1 };
    const { losses, mistakes } = await bestInHindsight(stream, 2);
    const entropy = -(0.75 * Math.log(0.75) + 0.25 * Math.log(0.25));
    expect(losses).toEqual([expect.closeTo(4 * entropy, 6), expect.closeTo(8 * entropy, 6)]);
    expect(mistakes).toEqual([1, 2]);
  });

  it("is no worse than any learner that stands still", async () => {
    const stream = await streams.flat.make({ part: "report", seed: 2, count: 500 });
    const { losses } = await bestInHindsight(stream, 1);
    const still = { transform: onlineConvex(0, { algorithm: "ogd" }), rates: [0] };
    const [[idle]] = await learnOnline([still], stream, 1);
    expect(idle.losses[0]).toBeCloseTo(500 * Math.LN2, 2);
    expect(losses[0]).toBeLessThan(0.8 * idle.losses[0]);
  });
});
