import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { expectClose, floatDTypes, sumError } from "../../test/compare.js";
import { sample } from "../../test/numbers.js";
import {
  conv1d,
  conv2d,
  memory,
  OptionError,
  ShapeError,
  scope,
  type Tensor,
  tensor,
  valueAndGrad,
  zeros,
} from "../index.js";

interface Problem {
  x: [B: number, C: number, H: number, W: number];
  weight: [O: number, perGroup: number, R: number, S: number];
  stride: [number, number];
  padding: [number, number];
  dilation: [number, number];
  groups: number;
}

/** The output and, for an upstream gradient, the gradients: every product once, in float64. */
function reference(
  { x: xs, weight: ws, stride, padding, dilation, groups }: Problem,
  x: Tensor,
  w: Tensor,
  b: Tensor,
  dy: Tensor,
) {
  const [[B, C, H, W], [O, perGroup, R, S]] = [xs, ws];
  const [OH, OW] = dy.shape.slice(2) as [number, number];
  const [xv, wv, bv, dv] = [x, w, b, dy].map((tensor) => tensor.dataSync()) as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const [out, dx, dw, db] = [B * O * OH * OW, x.size, w.size, O].map((n) => new Float64Array(n)) as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  for (let at = 0; at < out.length; at++) {
    const [j, i, o, image] = [
      at % OW,
      Math.floor(at / OW) % OH,
      Math.floor(at / OW / OH) % O,
      Math.floor(at / OW / OH / O),
    ];
    out[at] = bv[o]!;
    db[o]! += dv[at]!;
    for (let k = 0; k < perGroup * R * S; k++) {
      const [s, r, c] = [k % S, Math.floor(k / S) % R, Math.floor(k / S / R)];
      const h = i * stride[0] - padding[0] + r * dilation[0];
      const v = j * stride[1] - padding[1] + s * dilation[1];
      if (h < 0 || h >= H || v < 0 || v >= W) continue;
      const from = ((image * C + Math.floor(o / (O / groups)) * perGroup + c) * H + h) * W + v;
      const weightAt = o * perGroup * R * S + k;
      out[at]! += wv[weightAt]! * xv[from]!;
      dx[from]! += wv[weightAt]! * dv[at]!;
      dw[weightAt]! += xv[from]! * dv[at]!;
    }
  }
  return { out, dx, dw, db };
}

function check(problem: Problem, dtype: "float32" | "float64"): void {
  scope(() => {
    const { x, weight, ...options } = problem;
    const of = (shape: readonly number[], seed: number) => sample(shape, seed, { dtype });
    const params = { x: of(x, 1), w: of(weight, 2), b: of([weight[0]], 3) };
    const { aux, grads } = valueAndGrad((p: typeof params) => {
      const out = conv2d(p.x, p.w, p.b, options);
      const dy = of([...out.shape], 4);
      return { loss: out.mul(dy).sum(), aux: { out, dy } };
    }, params);
    const wide = [params.x, params.w, params.b, aux.dy].map((tensor) => tensor.astype("float64"));
    const expected = reference(problem, ...(wide as [Tensor, Tensor, Tensor, Tensor]));
    const label = JSON.stringify(problem);
    const depth = weight[1] * weight[2] * weight[3];
    const positions = x[0] * aux.out.shape[2]! * aux.out.shape[3]!;
    // Products of numbers in [-1, 1) have a deviation of 1/3: running sums of them grow to √terms / 3.
    const tolerance = (terms: number) => ({ atol: sumError(terms, dtype) * (1 + Math.sqrt(terms) / 3) });
    expectClose(aux.out.dataSync(), expected.out, tolerance(depth + 1), `out ${label}`);
    expectClose(
      grads.x.dataSync(),
      expected.dx,
      tolerance((weight[0] / options.groups) * weight[2] * weight[3]),
      `dx ${label}`,
    );
    expectClose(grads.w.dataSync(), expected.dw, tolerance(positions), `dweight ${label}`);
    expectClose(grads.b.dataSync(), expected.db, tolerance(positions), `dbias ${label}`);
  });
}

const plain = { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 } as Omit<Problem, "x" | "weight">;

describe("conv2d", () => {
  it("computes a worked example", () => {
    const x = tensor([1, 2, 3, 4, 5, 6, 7, 8, 9], { shape: [1, 1, 3, 3] });
    const w = tensor([1, 0, 0, -1], { shape: [1, 1, 2, 2] });
    expect([...conv2d(x, w).dataSync()]).toEqual([-4, -4, -4, -4]); // x[i, j] − x[i + 1, j + 1]
    expect([...conv2d(x, w, tensor([10]), { stride: 2, padding: 1 }).dataSync()]).toEqual([9, 7, 3, 6]);
  });

  it.each(floatDTypes)("agrees with plain loops where the work is cut: tiles, blocks, tasks (%s)", (dtype) => {
    check({ ...plain, x: [3, 20, 17, 13], weight: [15, 20, 3, 3], padding: [1, 1] }, dtype); // 221 positions, 180 rows
    check({ ...plain, x: [1, 130, 4, 5], weight: [3, 130, 2, 2] }, dtype); // 520 rows: two blocks
    check({ ...plain, x: [2, 33, 14, 16], weight: [29, 33, 1, 1] }, dtype); // the image is the patches
    check({ ...plain, x: [2, 12, 20, 19], weight: [12, 1, 3, 3], padding: [1, 1], groups: 12 }, dtype);
    check({ ...plain, x: [2, 8, 15, 40], weight: [16, 4, 5, 3], stride: [2, 3], padding: [2, 0], groups: 2 }, dtype);
  });

  it("agrees with plain loops for any geometry", () => {
    const pair = (low: number, high: number) =>
      fc.tuple(fc.integer({ min: low, max: high }), fc.integer({ min: low, max: high }));
    const problems = fc
      .record({
        B: fc.integer({ min: 1, max: 2 }),
        groups: fc.integer({ min: 1, max: 3 }),
        channels: pair(1, 3),
        size: pair(1, 9),
        window: pair(1, 4),
        stride: pair(1, 3),
        padding: pair(0, 3),
        dilation: pair(1, 2),
      })
      .filter(({ size, window, padding, dilation }) =>
        size.every((n, i) => n + 2 * padding[i]! > dilation[i]! * (window[i]! - 1)),
      );
    const property = fc.property(problems, ({ B, channels: [C, O], size, window, ...rest }) =>
      check({ x: [B, C * rest.groups, ...size], weight: [O * rest.groups, C, ...window], ...rest }, "float64"),
    );
    fc.assert(property, { numRuns: 60, seed: 3 });
  });

  it("keeps the size with same padding", () => {
    const x = sample([1, 2, 5, 6], 1);
    const w = sample([3, 2, 3, 5], 2);
    const same = conv2d(x, w, undefined, { padding: "same" });
    expect(same.shape).toEqual([1, 3, 5, 6]);
    expect([...same.dataSync()]).toEqual([...conv2d(x, w, undefined, { padding: [1, 2] }).dataSync()]);
    expect(conv2d(x, w, undefined, { padding: "valid" }).shape).toEqual([1, 3, 3, 2]);
  });

  it("gives empty outputs and zero gradients for empty batches", () => {
    const { value, grads } = valueAndGrad((p: { x: Tensor; w: Tensor }) => conv2d(p.x, p.w).sum(), {
      x: zeros([0, 2, 4, 4]),
      w: zeros([3, 2, 3, 3]),
    });
    expect(value.itemSync()).toBe(0);
    expect(grads.x.shape).toEqual([0, 2, 4, 4]);
    expect([...grads.w.dataSync()]).toEqual(new Array(54).fill(0));
  });

  it("refuses what doesn't fit", () => {
    const [x, w] = [zeros([1, 4, 5, 5]), zeros([2, 4, 3, 3])];
    expect(() => conv2d(zeros([4, 5, 5]), w)).toThrow(ShapeError);
    expect(() => conv2d(x, zeros([2, 3, 3, 3]))).toThrow("[conv2d] with 1 groups expected weight");
    expect(() => conv2d(x, zeros([3, 2, 3, 3]), undefined, { groups: 2 })).toThrow(ShapeError);
    expect(() => conv2d(x, zeros([2, 4, 7, 3]))).toThrow("[conv2d] a window of 7 doesn't fit an axis of 5");
    expect(() => conv2d(zeros([1, 4, 0, 5]), w, undefined, { padding: 2 })).toThrow("doesn't fit an axis of 0");
    expect(() => conv2d(x, w, zeros([3]))).toThrow("[conv2d] bias must be [2]");
    expect(() => conv2d(x, w, undefined, { stride: 0 })).toThrow(OptionError);
    expect(() => conv2d(x, w, undefined, { padding: [1, -1] })).toThrow(OptionError);
    expect(() => conv2d(x, w, undefined, { padding: "same", stride: 2 })).toThrow('padding "same" needs a stride of 1');
    expect(() => conv2d(x, zeros([2, 4, 2, 3]), undefined, { padding: "same" })).toThrow("odd length");
    expect(() => conv2d(x, w, undefined, { groups: 0 })).toThrow(OptionError);
  });
});

describe("conv1d", () => {
  it("is conv2d of height 1", () => {
    const x = tensor([1, 2, 3, 4], { shape: [1, 1, 4] });
    const w = tensor([1, -1], { shape: [1, 1, 2] });
    const out = conv1d(x, w, tensor([0.5]), { padding: 1 });
    expect(out.shape).toEqual([1, 1, 5]);
    expect([...out.dataSync()]).toEqual([-0.5, -0.5, -0.5, -0.5, 4.5]);
    expect([...conv1d(x, w, undefined, { dilation: 2 }).dataSync()]).toEqual([-2, -2]);
    expect(() => conv1d(x, zeros([1, 1, 1, 2]))).toThrow(ShapeError);
    expect(() => conv1d(x, w, undefined, { stride: [1, 1] as never })).toThrow(OptionError);
  });

  it("leaves nothing but its result, and speaks of itself", () => {
    const [x, w] = [zeros([1, 2, 4]), zeros([3, 2, 2])];
    const before = memory().tensors;
    conv1d(x, w).dispose();
    expect(memory().tensors).toBe(before);
    expect(() => conv1d(x, zeros([3, 1, 2]))).toThrow(/^\[conv1d\] with 1 groups .* x is \[1, 2, 4\]/);
    expect(() => conv1d(x, zeros([3, 2, 5]))).toThrow("[conv1d] a window of 5 doesn't fit an axis of 4");
  });
});
