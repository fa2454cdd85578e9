import { mul, scope, type Tensor, tensor } from "@llmeff/tensor";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AdamW } from "./fused-adamw.js";
import { Sonew } from "./fused-sonew.js";

const vector = (n: number) =>
  fc
    .array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: n, maxLength: n })
    .map((xs) => Float64Array.from(xs));
/** 20 numbers of magnitude 0.01 to 1. */
const awayFromZero = vector(20).map((xs) => xs.map((x) => (x < 0 ? -0.01 : 0.01) + 0.99 * x));
const length = (x: ArrayLike<number>) => Math.hypot(...Array.from(x));

describe("Sonew", () => {
  it("takes the first step by hand", () => {
    // Without averaging: m̂ = g = (1, 2), H = [[1, 2], [2, 4]], eps 1: a = (2, 5), ψ = 2/5, S0 = 2 − 4/5 = 1.2, S1 = 5.
    // z = ((1 − 0.4·2)/1.2, 2/5) = (1/6, 0.4), u = (1/6, 0.4 − 0.4/6) = (1/6, 1/3).
    const p = Float64Array.of(0, 0);
    new Sonew({ p }, { learningRate: 6, beta1: 0, beta2: 0, eps: 1, graft: "none" }).step({ p: Float64Array.of(1, 2) });
    expect(p[0]).toBeCloseTo(-1, 12);
    expect(p[1]).toBeCloseTo(-2, 12);
  });

  it("inverts the tridiagonal statistics: two coordinates get the exact Newton direction", () => {
    fc.assert(
      fc.property(vector(2), vector(2), (g1, g2) => {
        const p = new Float64Array(2);
        const optimizer = new Sonew({ p }, { learningRate: 1, beta1: 0, beta2: 0.5, eps: 0.1, graft: "none" });
        optimizer.step({ p: g1 });
        const start = p.slice();
        optimizer.step({ p: g2 });
        // H = (g1 g1ᵀ + 2 g2 g2ᵀ)/3 + 0.1, u = H⁻¹ g2 by Cramer's rule
        const h = (i: number, j: number) => (g1[i]! * g1[j]! + 2 * g2[i]! * g2[j]!) / 3 + (i === j ? 0.1 : 0);
        const det = h(0, 0) * h(1, 1) - h(0, 1) ** 2;
        expect(start[0]! - p[0]!).toBeCloseTo((h(1, 1) * g2[0]! - h(0, 1) * g2[1]!) / det, 9);
        expect(start[1]! - p[1]!).toBeCloseTo((h(0, 0) * g2[1]! - h(0, 1) * g2[0]!) / det, 9);
      }),
    );
  });

  it("has the length of Adam's update under the Adam graft, and descends", () => {
    fc.assert(
      fc.property(vector(37), (g) => {
        fc.pre(length(g) > 0.1);
        const sonew = { p: new Float64Array(37) };
        const adam = { p: new Float64Array(37) };
        new Sonew(sonew, { learningRate: 1, eps: 1e-3 }).step({ p: g });
        new AdamW(adam, { learningRate: 1, beta2: 0.99, weightDecay: 0 }).step({ p: g });
        expect(length(sonew.p)).toBeCloseTo(length(adam.p), 9);
        expect(sonew.p.reduce((dot, x, i) => dot + x * g[i]!, 0)).toBeLessThan(0);
      }),
    );
  });

  it("does not care about the scale of the gradients with relative eps and the Adam graft", () => {
    fc.assert(
      fc.property(awayFromZero, fc.integer({ min: -6, max: 6 }), (g, exponent) => {
        const a = { p: new Float64Array(20) };
        const b = { p: new Float64Array(20) };
        const options = { learningRate: 1, eps: 1e-2, epsMode: "relative", graftEps: 1e-30 } as const;
        new Sonew(a, options).step({ p: g });
        new Sonew(b, options).step({ p: g.map((x) => x * 2 ** exponent) });
        for (const [i, x] of a.p.entries()) expect(b.p[i]).toBeCloseTo(x, 9);
      }),
    );
  });

  it("is diagonal where chains have one element", () => {
    // Chains of one: u = m̂ / (g² + eps)
    const g = Float64Array.of(1, -2, 3);
    const p = new Float64Array(3);
    new Sonew({ p }, { learningRate: 1, eps: 0.5, graft: "none", chain: "row", shapes: { p: [3, 1] } }).step({ p: g });
    for (const [i, x] of g.entries()) expect(p[i]).toBeCloseTo(-x / (x * x + 0.5), 12);
  });

  it("stays finite in float32 with the smallest eps while neighbours are perfectly correlated", () => {
    const n = 1000;
    const p = new Float32Array(n).fill(1);
    const optimizer = new Sonew({ p }, { learningRate: 1e-2, eps: 1e-8 });
    for (let step = 0; step < 50; step++) optimizer.step({ p: p.map((x) => x) }); // the gradient of |p|²/2
    expect(p.every(Number.isFinite)).toBe(true);
    expect(length(p)).toBeLessThan(0.7 * Math.sqrt(n));
  });

  it("inverts the statistics where the band covers them: the exact Newton direction of n coordinates", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 10 }),
        fc.infiniteStream(fc.double({ min: -1, max: 1, noNaN: true })),
        (n, xs) => {
          const draw = () => Float64Array.from({ length: n }, () => xs.next().value as number);
          const [g1, g2] = [draw(), draw()];
          const p = new Float64Array(n);
          // A band of n − 1, and one that is wider than the chain.
          const wide = new Float64Array(n);
          const options = { learningRate: 1, beta1: 0, beta2: 0.5, eps: 0.1, graft: "none" } as const;
          const exact = new Sonew({ p }, { ...options, band: n - 1 });
          const wider = new Sonew({ wide }, { ...options, band: Math.min(10, n + 2) });
          exact.step({ p: g1 });
          wider.step({ wide: g1 });
          const start = p.slice();
          exact.step({ p: g2 });
          wider.step({ wide: g2 });
          const u = p.map((x, i) => start[i]! - x);
          // H u = g2 with H = (g1 g1ᵀ + 2 g2 g2ᵀ)/3 + 0.1
          const dot = (a: Float64Array) => a.reduce((sum, x, i) => sum + x * u[i]!, 0);
          for (let i = 0; i < n; i++) {
            const hu = (g1[i]! * dot(g1) + 2 * g2[i]! * dot(g2)) / 3 + 0.1 * u[i]!;
            expect(hu).toBeCloseTo(g2[i]!, 9);
            expect(wide[i]).toBeCloseTo(p[i]!, 12);
          }
        },
      ),
    );
  });

  it.each([0, 1, 2, 4, 10])("is diagonal with any band where chains have one element: band %i", (band) => {
    const g = Float64Array.of(1, -2, 3);
    const p = new Float64Array(3);
    const options = { learningRate: 1, eps: 0.5, graft: "none", chain: "row", band, shapes: { p: [3, 1] } } as const;
    new Sonew({ p }, options).step({ p: g });
    for (const [i, x] of g.entries()) expect(p[i]).toBeCloseTo(-x / (x * x + 0.5), 12);
  });

  it.each([{ band: 2 }, { band: 4 }, { band: 10 }, { band: 4, drop: "isolate" }] as const)(
    "stays finite in float32 and descends while all neighbours are perfectly correlated: %j",
    (options) => {
      const n = 1000;
      const p = new Float32Array(n).fill(1);
      const optimizer = new Sonew({ p }, { learningRate: 1e-2, eps: 1e-8, ...options });
      for (let step = 0; step < 50; step++) optimizer.step({ p: p.map((x) => x) });
      expect(p.every(Number.isFinite)).toBe(true);
      expect(length(p)).toBeLessThan(0.7 * Math.sqrt(n));
    },
  );

  it.each([0, 1, 3, 10])("moves nothing where the gradient is 0: band %i", (band) => {
    const p = Float32Array.of(1, 2, 3, 4);
    const optimizer = new Sonew({ p }, { band });
    optimizer.step({ p: new Float32Array(4) });
    expect([...p]).toEqual([1, 2, 3, 4]);
  });

  it("keeps other chains as they are when one changes", () => {
    const g = Float64Array.from({ length: 12 }, (_, i) => Math.sin(3 * i + 1));
    const options = { band: 3, chain: "row", shapes: { p: [3, 4] }, graft: "none", eps: 1e-2 } as const;
    const [a, b] = [new Float64Array(12), new Float64Array(12)];
    new Sonew({ p: a }, options).step({ p: g });
    new Sonew({ p: b }, options).step({ p: g.map((x, i) => (i >= 4 && i < 8 ? 5 * x : x)) });
    for (const i of [0, 1, 2, 3, 8, 9, 10, 11]) expect(b[i]).toBe(a[i]);
    expect(b[5]).not.toBe(a[5]);
  });

  it("stores averages in bfloat16, half the bytes, and descends as with float32 under noise", () => {
    const run = (stateDtype: "float32" | "bfloat16") => {
      const p = tensor(new Float32Array(64).fill(1));
      const optimizer = new Sonew({ p }, { learningRate: 2e-2, eps: 1e-2, stateDtype });
      const curvature = tensor(Array.from({ length: 64 }, (_, i) => 1 + i / 8));
      for (let step = 0; step < 200; step++) {
        const noise = tensor(Array.from({ length: 64 }, (_, i) => 4 * Math.cos((1 + i * i) * (3 + step))));
        scope(() => optimizer.step({ p: mul(p, curvature).add(noise) }));
      }
      return { bytes: optimizer.stateBytes(), length: length(p.dataSync()) };
    };
    const [full, half] = [run("float32"), run("bfloat16")];
    expect([full.bytes, half.bytes]).toEqual([64 * 3 * 4, 64 * 3 * 2]);
    // From 8.
    expect(full.length).toBeLessThan(4);
    expect(half.length).toBeLessThan(1.1 * full.length);
  });

  it("rounds state by seed, parameter and step alone, and continues bit by bit", () => {
    const gradAt = (step: number) => tensor(Float32Array.from({ length: 100 }, (_, i) => Math.sin(i * i + step)));
    const options = { stateDtype: "bfloat16", band: 2, graft: "rmspropNorm", eps: 1e-2 } as const;
    const start = () => ({ a: tensor(new Float32Array(100)), b: tensor(new Float32Array(100)) });
    const steps = (optimizer: Sonew<Tensor>, from: number, to: number) => {
      for (let step = from; step < to; step++) scope(() => optimizer.step({ a: gradAt(step), b: gradAt(step) }));
    };
    const [whole, cut] = [start(), start()];
    const first = new Sonew(whole, options);
    steps(first, 0, 6);
    const before = new Sonew(cut, options);
    steps(before, 0, 3);
    const after = new Sonew(cut, options);
    after.loadStateDict(before.stateDict());
    steps(after, 3, 6);
    expect(cut.a.dataSync()).toEqual(whole.a.dataSync());
    const state = first.stateDict().tensors as Record<string, Tensor>;
    expect(after.stateDict().tensors["a.h1"]!.dataSync()).toEqual(state["a.h1"]!.dataSync());
    expect(state["a.h0"]!.dataSync()).not.toEqual(state["b.h0"]!.dataSync());
    const other = start();
    const seeded = new Sonew(other, { ...options, seed: 1 });
    steps(seeded, 0, 6);
    expect(seeded.stateDict().tensors["a.h0"]!.dataSync()).not.toEqual(state["a.h0"]!.dataSync());
  });

  it("refuses a band that its state doesn't have, and changes nothing", () => {
    const p = Float32Array.of(1, 2, 3);
    const optimizer = new Sonew({ p });
    (optimizer.paramGroups[0] as { band: number }).band = 2;
    expect(() => optimizer.step({ p: Float32Array.of(1, 1, 1) })).toThrow('[Sonew.step] "p" has no state "h2"');
    expect([...p]).toEqual([1, 2, 3]);
    expect(optimizer.stepCount).toBe(0);
  });

  it("counts what the stability rule drops", async () => {
    const p = new Float64Array(4);
    const optimizer = new Sonew({ p }, { gamma: 0.5, eps: 1e-6 });
    optimizer.step({ p: Float64Array.of(1, 1, 1, 1) }); // rank one: every coordinate with an edge fails
    expect(await optimizer.droppedEdges()).toBe(3);
  });

  it.each([
    [{ eps: 0 }, "[Sonew] eps must be a positive number; received 0."],
    [{ gamma: 1 }, "[Sonew] gamma must be a number in [0, 1); received 1."],
    [{ graft: "adagrad" }, "[Sonew] graft must be one of"],
    [{ order: "column" }, '[Sonew] order must be one of "row", "col"; received "column".'],
    [{ beta1: 1 }, "[Sonew] beta1 must be a number in [0, 1); received 1."],
    [{ band: 11 }, "[Sonew] band must be an integer in 0 … 10; received 11."],
    [{ band: -1 }, "[Sonew] band must be an integer in 0 … 10; received -1."],
    [{ band: 1.5 }, "[Sonew] band must be an integer in 0 … 10; received 1.5."],
    [{ gamma: -0.1 }, "[Sonew] gamma must be a number in [0, 1); received -0.1."],
    [{ gamma: -1, gammaMode: "absolute" }, "[Sonew] gamma must be a number of at least 0; received -1."],
    [{ drop: "both" }, '[Sonew] drop must be one of "forward", "isolate"; received "both".'],
    [{ seed: -1 }, "[Sonew] seed must be a non-negative integer; received -1."],
    [
      { stateDtype: "float16" },
      '[Sonew] stateDtype must be one of "float32", "float64", "bfloat16"; received "float16".',
    ],
    [{ stateDtype: "float64" }, `[Sonew] stateDtype "float64" doesn't go with parameters that are stepped in float32.`],
    [{ stateDtype: "bfloat16" }, "[Sonew] there is no typed array of bfloat16; state of a Float32Array is float32."],
    [{ bandWidth: 4 }, '[Sonew] unknown option "bandWidth".'],
    [{ shapes: { p: [2, 3] } }, '[Sonew] shapes["p"] is [2, 3] but the array has 4 elements.'],
  ])("refuses %j", (options, message) => {
    expect(() => new Sonew({ p: new Float32Array(4) }, options as object)).toThrow(message);
  });
});
