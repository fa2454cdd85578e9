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
    [{ band: 4 }, '[Sonew] unknown option "band".'],
    [{ shapes: { p: [2, 3] } }, '[Sonew] shapes["p"] is [2, 3] but the array has 4 elements.'],
  ])("refuses %j", (options, message) => {
    expect(() => new Sonew({ p: new Float32Array(4) }, options as object)).toThrow(message);
  });
});
