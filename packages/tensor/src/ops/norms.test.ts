import { describe, expect, it } from "vitest";
import { expectClose, expectSameBits, floatDTypes, sumError, unitRoundoff } from "../../test/compare.js";
import { numbers, sample } from "../../test/numbers.js";
import {
  addLayerNorm,
  addRmsNorm,
  type DType,
  layerNorm,
  OptionError,
  rmsNorm,
  ShapeError,
  scope,
  type Tensor,
  tensor,
  valueAndGrad,
  zeros,
} from "../index.js";

const widths = [1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 130, 1025, 2500];
const roundingOf = (n: number, dtype: "float32" | "float64") => ({
  atol: 8 * sumError(n, dtype) + 16 * unitRoundoff[dtype],
});

interface Reference {
  y: Float64Array;
  dx: Float64Array;
  dweight: Float64Array;
  dbias: Float64Array;
}

/** Layer norm and its gradient for the upstream gradient `dy`, in float64; RMS norm where `centred` is false. */
function reference(
  x: ArrayLike<number>,
  w: Float64Array,
  b: Float64Array,
  dy: Float64Array,
  centred = true,
): Reference {
  const C = w.length;
  const [y, dx] = [new Float64Array(x.length), new Float64Array(x.length)];
  const [dweight, dbias] = [new Float64Array(C), new Float64Array(C)];
  for (let row = 0; row < x.length; row += C) {
    const mean = (f: (i: number) => number) => {
      let total = 0;
      for (let i = 0; i < C; i++) total += f(i);
      return total / C;
    };
    const average = centred ? mean((i) => x[row + i]!) : 0;
    const r = 1 / Math.sqrt(mean((i) => (x[row + i]! - average) ** 2) + 1e-5);
    const hat = (i: number) => (x[row + i]! - average) * r;
    const t = (i: number) => dy[row + i]! * w[i]!;
    const [meanT, pull] = [centred ? mean(t) : 0, mean((i) => t(i) * hat(i))];
    for (let i = 0; i < C; i++) {
      y[row + i] = hat(i) * w[i]! + b[i]!;
      dx[row + i] = r * (t(i) - meanT - hat(i) * pull);
      dweight[i]! += dy[row + i]! * hat(i);
      dbias[i]! += dy[row + i]!;
    }
  }
  return { y, dx, dweight, dbias };
}

function withUpstream(params: Record<string, Tensor>, dy: Tensor, fn: (p: Record<string, Tensor>) => Tensor) {
  const { aux, grads } = valueAndGrad((p: Record<string, Tensor>) => {
    const y = fn(p);
    return { loss: y.mul(dy).sum(), aux: y };
  }, params);
  return { y: aux as Tensor, grads };
}

describe("layerNorm", () => {
  it("computes a worked example", () => {
    // Row 1, 3: mean 2, variance 1; row 4, 0: mean 2, variance 4.
    const x = tensor([
      [1, 3],
      [4, 0],
    ]);
    expect([...layerNorm(x, undefined, undefined, { eps: 0 }).dataSync()]).toEqual([-1, 1, 1, -1]);
    expect([...layerNorm(x, tensor([2, 3]), tensor([10, 20]), { eps: 0 }).dataSync()]).toEqual([8, 23, 12, 17]);
  });

  it.each(floatDTypes)("agrees with plain loops for rows of any length, value and gradients (%s)", (dtype) => {
    for (const C of widths) {
      scope(() => {
        const rows = C < 100 ? 37 : 3;
        const of = (shape: number[], seed: number, as: DType = dtype) => sample(shape, seed, { dtype: as });
        const [w, b, dy] = [numbers(C, 2), numbers(C, 3), numbers(rows * C, 4)];
        const expected = reference(numbers(rows * C, 1), w, b, dy);
        const params = { x: of([rows, C], 1), w: of([C], 2), b: of([C], 3) };
        const { y, grads } = withUpstream(params, of([rows, C], 4), (p) => layerNorm(p.x!, p.w, p.b));
        // A row of length 1 or 2 may have a tiny variance: rstd, up to 1/√eps = 316, multiplies the rounding of its terms.
        const { atol } = roundingOf(C, dtype);
        const scale = C < 8 ? 316 : 8;
        expectClose(y.dataSync(), expected.y, { atol: atol * scale }, `y of ${C}`);
        expectClose(grads.x!.dataSync(), expected.dx, { atol: atol * scale ** 2 }, `dx of ${C}`);
        expectClose(grads.w!.dataSync(), expected.dweight, { atol: atol * scale * rows }, `dweight of ${C}`);
        expectClose(grads.b!.dataSync(), expected.dbias, { atol: atol * rows }, `dbias of ${C}`);
      });
    }
  });

  it("is exact where the mean is large beside the deviation", () => {
    const C = 1000;
    // Multiples of 1/64 about 10⁵: float32 holds them exactly, but no sum of them.
    const x = Float64Array.from(numbers(3 * C, 1), (v) => 1e5 + Math.round(64 * v) / 64);
    const [ones, none, dy] = [new Float64Array(C).fill(1), new Float64Array(C), numbers(3 * C, 2)];
    const expected = reference(x, ones, none, dy);
    const params = { x: tensor(x, { shape: [3, C], dtype: "float32" }), w: tensor(ones, { dtype: "float32" }) };
    const upstream = tensor(dy, { shape: [3, C], dtype: "float32" });
    const { y, grads } = withUpstream(params, upstream, (p) => layerNorm(p.x!, p.w));
    expectClose(y.dataSync(), expected.y, roundingOf(C, "float32"), "y");
    expectClose(grads.x!.dataSync(), expected.dx, roundingOf(C, "float32"), "dx");
    expectClose(grads.w!.dataSync(), expected.dweight, roundingOf(C, "float32"), "dweight");
  });

  it("keeps a NaN or an infinity in its row", () => {
    const x = tensor([
      [1, Number.NaN],
      [2, 4],
      [Number.POSITIVE_INFINITY, 0],
    ]);
    const y = [...layerNorm(x, undefined, undefined, { eps: 0 }).dataSync()];
    expect(y.slice(2, 4)).toEqual([-1, 1]);
    expect([...y.slice(0, 2), ...y.slice(4)].every(Number.isNaN)).toBe(true);
  });

  it("takes views and empty arrays", () => {
    const x = sample([5, 6], 1, { dtype: "float32" });
    expectSameBits(layerNorm(x.T).dataSync(), layerNorm(x.T.clone()).dataSync());
    const repeated = x.slice(0, 0, 1).expand([3, 6]);
    expectSameBits(layerNorm(repeated).dataSync(), layerNorm(repeated.clone()).dataSync());
    expect(layerNorm(zeros([0, 4])).shape).toEqual([0, 4]);
    const { grads } = valueAndGrad((w: Tensor) => layerNorm(zeros([0, 4]), w).sum(), zeros([4]));
    expect([...grads.dataSync()]).toEqual([0, 0, 0, 0]);
  });

  it("refuses parameters that don't fit", () => {
    expect(() => layerNorm(zeros([2, 3]), zeros([2]))).toThrow(ShapeError);
    expect(() => layerNorm(zeros([2, 3]), undefined, zeros([2, 3]))).toThrow("[layerNorm] expected x […, C] and bias");
    expect(() => layerNorm(zeros([]))).toThrow(ShapeError);
    expect(() => layerNorm(zeros([2]), undefined, undefined, { eps: -1 })).toThrow(OptionError);
    expect(() => addLayerNorm(zeros([2, 3]), zeros([3]))).toThrow("[addLayerNorm] x and residual must have one shape");
  });
});

describe("rmsNorm", () => {
  it("multiplies by 1 + weight with plusOne", () => {
    // √((3² + 4² + 0 + 0) / 4) = 2.5.
    const x = tensor([3, 4, 0, 0]);
    const y = rmsNorm(x, tensor([0, 1, 0, 0]), { eps: 0, plusOne: true });
    expectClose(y.dataSync(), [1.2, 3.2, 0, 0], { rtol: 4 * unitRoundoff.float32 });
  });

  it("agrees with plain loops for rows of any length, value and gradients", () => {
    for (const C of widths) {
      scope(() => {
        const [w, dy] = [numbers(C, 2), numbers(9 * C, 4)];
        const expected = reference(
          numbers(9 * C, 1, 0.5, 2),
          w.map((v) => v + 1),
          new Float64Array(C),
          dy,
          false,
        );
        const params = { x: sample([9, C], 1, { low: 0.5, high: 2 }), w: sample([C], 2) };
        const { y, grads } = withUpstream(params, sample([9, C], 4), (p) => rmsNorm(p.x!, p.w!, { plusOne: true }));
        const { atol } = roundingOf(C, "float64");
        expectClose(y.dataSync(), expected.y, { atol }, `y of ${C}`);
        expectClose(grads.x!.dataSync(), expected.dx, { atol }, `dx of ${C}`);
        expectClose(grads.w!.dataSync(), expected.dweight, { atol: 9 * atol }, `dweight of ${C}`);
      });
    }
  });

  it("refuses what doesn't fit", () => {
    expect(() => addRmsNorm(zeros([2, 3]), zeros([2, 1]), zeros([3]))).toThrow(ShapeError);
    expect(() => addRmsNorm(zeros([2, 3]), zeros([2, 3]), zeros([2]))).toThrow("[addRmsNorm] expected x […, C]");
  });
});

describe("norms after an addition", () => {
  const fused = {
    rms: (x: Tensor, r: Tensor, w: Tensor) => addRmsNorm(x, r, w),
    layer: (x: Tensor, r: Tensor, w: Tensor) => addLayerNorm(x, r, w),
  };
  const apart = {
    rms: (x: Tensor, r: Tensor, w: Tensor) => [x.add(r), rmsNorm(x.add(r), w)] as const,
    layer: (x: Tensor, r: Tensor, w: Tensor) => [x.add(r), layerNorm(x.add(r), w)] as const,
  };

  it.each(["rms", "layer"] as const)("give the bits of the addition and the norm apart (%s)", (kind) => {
    for (const C of [1, 5, 16, 33, 300]) {
      scope(() => {
        const of = (shape: number[], seed: number) => sample(shape, seed, { dtype: "float32" });
        const params = { x: of([4, C], 1), r: of([C, 4], 2), w: of([C], 3) };
        const run = (norm: (typeof fused)["rms"] | (typeof apart)["rms"]) =>
          valueAndGrad(({ x, r, w }: typeof params) => {
            const [sum, y] = norm(x, r.T, w);
            return {
              loss: y
                .mul(of([4, C], 4))
                .sum()
                .add(sum.mul(of([4, C], 5)).sum()),
              aux: [sum, y],
            };
          }, params);
        const [a, b] = [run(fused[kind]), run(apart[kind])];
        for (const i of [0, 1]) expectSameBits(a.aux[i]!.dataSync(), b.aux[i]!.dataSync(), `result ${i} of ${C}`);
        expectSameBits(a.grads.w.dataSync(), b.grads.w.dataSync(), `dweight of ${C}`);
        // One rounding less or more, where the two gradients are added.
        expectClose(a.grads.x.dataSync(), b.grads.x.dataSync(), { atol: 2 ** -20, rtol: 2 ** -22 }, `dx of ${C}`);
        expectSameBits(a.grads.x.dataSync(), a.grads.r.T.clone().dataSync(), `dresidual of ${C}`);
      });
    }
  });
});
