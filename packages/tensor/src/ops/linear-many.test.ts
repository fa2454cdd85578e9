import { describe, expect, it } from "vitest";
import { expectClose, largest, sumError } from "../../test/compare.js";
import * as t from "../index.js";
import { linear, linearMany, profile, randomNormal, type Tensor, valueAndGrad } from "../index.js";

const normal = (seed: number, shape: number[], dtype: t.DType = "float32") => randomNormal({ seed }, shape, { dtype });

/** What rounding may make of sums of `terms` products of numbers from two arrays, twice. */
const errorOf = (terms: number, a: readonly Tensor[], b: readonly Tensor[]) => {
  const most = (tensors: readonly Tensor[]) => Math.max(...tensors.map((x) => largest(x.dataSync())));
  return { atol: 2 * sumError(terms, "float32") * most(a) * most(b) };
};

describe("linearMany", () => {
  it.each([1, 7, 255, 256, 300])("gives the results and gradients of the layers one by one, of %d rows", (rows) => {
    const [I, O] = [33, [20, 1, 47]];
    const x = normal(1, [rows, I]);
    const weights = O.map((o, i) => normal(2 + i, [o, I]));
    const scales = O.map((o, i) => normal(12 + i, [rows, o]));
    const run = (layers: (x: Tensor, weights: readonly Tensor[]) => readonly Tensor[]) =>
      valueAndGrad((p) => layers(p.x, p.weights).reduce((sum, y, i) => sum.add(y.mul(scales[i]!).sum()), t.zeros([])), {
        x,
        weights,
      }).grads;
    const results = linearMany(x, weights);
    for (const [i, result] of results.entries()) {
      expect(result.shape).toEqual([rows, O[i]]);
      expectClose(result.dataSync(), linear(x, weights[i]!).dataSync(), errorOf(I, [x], weights));
    }
    const many = run(linearMany);
    const single = run((x, all) => all.map((weight) => linear(x, weight)));
    expectClose(many.x.dataSync(), single.x.dataSync(), errorOf(68, scales, weights));
    for (const [i, dweight] of many.weights.entries()) {
      expect(dweight.isContiguous).toBe(true);
      expectClose(dweight.dataSync(), single.weights[i]!.dataSync(), errorOf(rows, scales, [x]));
    }
  });

  it("takes a single row without a leading axis, with what goes along", () => {
    const x = normal(1, [9]);
    const weights = [normal(2, [5, 9]), normal(3, [5, 9])];
    const [a, b] = linearMany(x, weights);
    expect(a!.shape).toEqual([5]);
    for (const [i, y] of [a!, b!].entries())
      expectClose(y.dataSync(), linear(x, weights[i]!).dataSync(), errorOf(9, [x], weights));
    const residual = normal(4, [5]);
    const added = t.linearAdd(residual, x, weights[0]!);
    expectClose(
      added.dataSync(),
      linear(x, weights[0]!).add(residual).dataSync(),
      errorOf(10, [x], [...weights, residual]),
    );
    const gated = t.swigluLinear(x, weights[0]!, weights[1]!);
    expect(gated.shape).toEqual([5]);
    expectClose(gated.dataSync(), t.swiglu(a!, b!).dataSync(), { atol: 1e-5, rtol: 1e-5 });
  });

  it("copies the weights alone, with attention and with swiglu behind it", () => {
    const [B, T, H, K, D, C] = [4, 64, 4, 2, 8, 32];
    const rope = t.ropeTables(T, D);
    const params = {
      x: normal(1, [B, T, C]),
      qkv: [H, K, K].map((heads, i) => normal(2 + i, [heads * D, C])),
      mlp: [5, 6].map((seed) => normal(seed, [2 * C, C])),
    };
    const { ops } = profile(() =>
      valueAndGrad((p) => {
        const heads = linearMany(p.x, p.qkv).map((y) => y.reshape([B, T, y.shape[2]! / D, D]));
        const attended = t.attention(...(heads as [Tensor, Tensor, Tensor]), { rope }).reshape([B, T, C]);
        const [gate, up] = linearMany(attended, p.mlp);
        return t.swiglu(gate!, up!).square().sum();
      }, params),
    );
    const calls = Object.fromEntries(ops.map(({ op, calls }) => [op, calls]));
    expect(calls).toMatchObject({ copy: 5, rope: 1, matmulTransposed: 2, matmul: 4 });
    expect(calls.addAll).toBeUndefined();
  });

  it("gives gradients that may be changed in place", () => {
    const weights = [normal(1, [4, 3]), normal(2, [4, 3])];
    const { grads } = valueAndGrad((p) => {
      const [a, b] = linearMany(normal(3, [300, 3]), p);
      return a!.add(b!).sum();
    }, weights);
    const before = grads[1]!.dataSync();
    t.copyInto(grads[0]!, t.zeros([4, 3]));
    expect(grads[0]!.dataSync().every((x) => x === 0)).toBe(true);
    expect(grads[1]!.dataSync()).toEqual(before);
    expect(before.some((x) => x !== 0)).toBe(true);
  });

  it("refuses what doesn't fit", () => {
    const x = normal(1, [2, 3]);
    expect(() => linearMany(x, [])).toThrow("[linearMany] expected at least one weight; received none.");
    expect(() => linearMany(x, [normal(1, [4, 3]), normal(1, [3, 4])])).toThrow(
      "[linearMany] expected x […, I] and weights[1] [O, I]; received [2, 3] and [3, 4].",
    );
    expect(() => linearMany(x, [normal(1, [4, 3], "float64")])).toThrow(t.DTypeError);
  });
});

describe("swigluLinear", () => {
  it.each([
    [1, "float32"],
    [3, "float32"],
    [6, "bfloat16"],
    [300, "float32"],
  ] as const)("is swiglu of two layers, of %d rows of %s", (rows, dtype) => {
    const x = normal(1, [2, rows, 64]).astype(dtype);
    const [gate, up] = [normal(2, [40, 64]).astype(dtype), normal(3, [40, 64]).astype(dtype)];
    const numbers = (y: Tensor) => y.astype("float64").dataSync();
    const wanted = t.swiglu(linear(x, gate), linear(x, up));
    // Products of sums of 64 terms, of about 8 each.
    const atol = dtype === "float32" ? 1e-3 : 2;
    expectClose(numbers(t.swigluLinear(x, gate, up)), numbers(wanted), { atol });
    if (dtype !== "float32") return;
    const grads = (f: (x: Tensor, gate: Tensor, up: Tensor) => Tensor) =>
      valueAndGrad((p) => f(p.x, p.gate, p.up).sum(), { x, gate, up }).grads;
    const [found, composed] = [grads(t.swigluLinear), grads((x, g, u) => t.swiglu(linear(x, g), linear(x, u)))];
    for (const name of ["x", "gate", "up"] as const) {
      expectClose(found[name].dataSync(), composed[name].dataSync(), { atol: 0.05 });
    }
  });

  it("refuses sizes that don't fit", () => {
    const x = normal(1, [2, 8]);
    expect(() => t.swigluLinear(x, normal(2, [4, 8]), normal(3, [5, 8]))).toThrow(
      "expected x […, I], gate and up [F, I]",
    );
    expect(() => t.swigluLinear(x, normal(2, [4, 9]), normal(3, [4, 9]))).toThrow("received [2, 8], [4, 9] and [4, 9]");
  });
});

describe("products with what goes along", () => {
  const numbers = (y: Tensor) => y.astype("float64").dataSync();
  it.each([
    [1, "float32"],
    [5, "float32"],
    [12, "float32"],
    [4, "bfloat16"],
    [300, "float32"],
  ] as const)("take a norm and a residual stream, of %d rows of %s", (rows, dtype) => {
    const make = (seed: number, shape: number[]) => normal(seed, shape).astype(dtype);
    const [x, residual] = [make(1, [rows, 64]), make(2, [rows, 24])];
    const [a, b, c] = [make(3, [24, 64]), make(4, [24, 64]), make(5, [7, 64])];
    const norm = { weight: make(6, [64]), eps: 1e-3, plusOne: true };
    const normed = t.rmsNorm(x, norm.weight, norm);
    // Sums of 64 terms of about 1, and rounding of what is about 8.
    const atol = dtype === "float32" ? 1e-4 : 0.5;
    const found = [...linearMany(x, [a, c], { norm }), t.swigluLinear(x, a, b, { norm }), t.linearAdd(residual, x, a)];
    const wanted = [
      linear(normed, a),
      linear(normed, c),
      t.swiglu(linear(normed, a), linear(normed, b)),
      residual.add(linear(x, a)),
    ];
    for (const [i, y] of found.entries()) {
      expect(y.shape).toEqual(wanted[i]!.shape);
      expectClose(numbers(y), numbers(wanted[i]!), { atol: i === 2 ? 20 * atol : atol });
    }
    if (dtype !== "float32") return;
    const grads = (f: (p: Record<"x" | "residual" | "weight", Tensor>) => Tensor) =>
      valueAndGrad((p) => f(p).sum(), { x, residual, weight: norm.weight }).grads;
    const along = grads((p) =>
      t.linearAdd(p.residual, p.x, a).add(linearMany(p.x, [b], { norm: { ...norm, weight: p.weight } })[0]!),
    );
    const apart = grads((p) => p.residual.add(linear(p.x, a)).add(linear(t.rmsNorm(p.x, p.weight, norm), b)));
    for (const name of ["x", "residual", "weight"] as const) {
      expectClose(along[name].dataSync(), apart[name].dataSync(), { atol: 1e-3 * rows });
    }
  });

  it("have the gradients of the norm's weight alone, and of the stream alone", () => {
    const [x, weight, stream] = [normal(1, [2, 8]), normal(2, [4, 8]), normal(3, [2, 4])];
    const scale = normal(4, [8]);
    const dscale = (f: (scale: Tensor) => Tensor) => valueAndGrad((p) => f(p.scale).sum(), { scale }).grads.scale;
    const wanted = dscale((s) => linear(t.rmsNorm(x, s), weight)).dataSync();
    expectClose(dscale((s) => linearMany(x, [weight], { norm: { weight: s } })[0]!).dataSync(), wanted, { atol: 1e-5 });
    const gated = dscale((s) => t.swigluLinear(x, weight, weight, { norm: { weight: s } }));
    expect(largest(gated.dataSync())).toBeGreaterThan(0);
    const { grads } = valueAndGrad((p) => t.linearAdd(p.stream, x, weight).sum(), { stream });
    expect([...grads.stream.dataSync()]).toEqual(new Array(8).fill(1));
  });

  it("refuse sizes that don't fit", () => {
    const x = normal(1, [2, 8]);
    expect(() => t.linearAdd(normal(2, [2, 5]), x, normal(3, [4, 8]))).toThrow("received [2, 5], [2, 8] and [4, 8]");
    expect(() => linearMany(x, [normal(3, [4, 8])], { norm: { weight: normal(2, [7]) } })).toThrow("weight [C]");
  });
});
