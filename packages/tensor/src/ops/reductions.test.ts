import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { expectClose, sumError, unitRoundoff } from "../../test/compare.js";
import { numbers, sample } from "../../test/numbers.js";
import * as t from "../index.js";

/** Operations to be called by name. */
const byName = { ...t };

const mean = (xs: number[]) => xs.reduce((a, b) => a + b, 0) / xs.length;
const squares = (xs: number[]) => {
  const center = mean(xs);
  return xs.reduce((a, b) => a + (b - center) ** 2, 0);
};
const references = {
  sum: (xs: number[]) => xs.reduce((a, b) => a + b, 0),
  mean,
  max: (xs: number[]) => xs.reduce((a, b) => Math.max(a, b)),
  min: (xs: number[]) => xs.reduce((a, b) => Math.min(a, b)),
  prod: (xs: number[]) => xs.reduce((a, b) => a * b, 1),
  variance: (xs: number[]) => squares(xs) / (xs.length - 1),
  std: (xs: number[]) => Math.sqrt(squares(xs) / (xs.length - 1)),
  logSumExp: (xs: number[]) => {
    const top = Math.max(...xs);
    return top + Math.log(xs.reduce((a, b) => a + Math.exp(b - top), 0));
  },
};
type Name = keyof typeof references;
const names = Object.keys(references) as Name[];

/** What a reduction makes of rows × columns numbers along an axis. */
function plain(name: Name, x: ArrayLike<number>, [rows, columns]: [number, number], axis: number): number[] {
  const outputs = axis === 0 ? columns : rows;
  const length = axis === 0 ? rows : columns;
  return Array.from({ length: outputs }, (_, o) =>
    references[name](Array.from({ length }, (_, i) => x[axis === 0 ? i * columns + o : o * columns + i]!)),
  );
}

describe("reductions", () => {
  const shapes: [number, number][] = [
    [2, 3],
    [3, 2],
    [5, 17],
    [64, 33],
    [67, 513],
    [1030, 5],
    [3, 70_000],
    [2100, 600],
  ];
  const cases = names.flatMap((name) => shapes.map((shape) => [name, shape] as const));

  it.each(cases)("%s of %j agrees with a plain loop, along both axes and of a transposed view", (name, shape) => {
    const near = name === "prod" ? ([0.99, 1.01] as const) : ([-1, 1] as const);
    const values = numbers(shape[0] * shape[1], 11, ...near);
    for (const dtype of ["float32", "float64"] as const) {
      t.scope(() => {
        const x = t.tensor(values, { shape, dtype });
        for (const axis of [0, 1]) {
          const expected = plain(name, values, shape, axis);
          const n = shape[axis]!;
          // Relative to the sum of absolute values for sums; products and roots repeat one rounding a factor.
          const tolerance = { atol: sumError(n, dtype) * 4, rtol: sumError(n, dtype) };
          expectClose(byName[name](x, { axis }).dataSync(), expected, tolerance, `axis ${axis} ${dtype}`);
          expectClose(byName[name](x.T, { axis: 1 - axis }).dataSync(), expected, tolerance, `view, axis ${axis}`);
        }
      });
    }
  });

  it("variance of a worked example", () => {
    // Mean 2.5; squares 2.25 + 0.25 + 0.25 + 2.25 = 5.
    const x = t.tensor([1, 2, 3, 4]);
    expectClose([t.variance(x).itemSync()], [5 / 3], { rtol: 2 * unitRoundoff.float32 });
    expect(t.variance(x, { correction: 0 }).itemSync()).toBe(1.25);
    expect(t.std(x, { correction: 0 }).itemSync()).toBe(Math.fround(Math.sqrt(1.25)));
    expect(t.variance(t.tensor([7])).itemSync()).toBeNaN();
    expect(t.variance(t.tensor([7]), { correction: 0 }).itemSync()).toBe(0);
  });

  it("variance doesn't cancel far from zero", () => {
    const values = numbers(10_000, 3, 0, 1).map((v) => Math.round(v * 8) / 8 + 4096);
    const expected = references.variance([...values]);
    // The float32 mean is off by at most half an ulp of 4096, 2^-12: its square is added.
    expectClose([t.variance(t.tensor(values, { dtype: "float32" })).itemSync()], [expected], {
      rtol: sumError(10_000, "float32"),
      atol: 2 ** -24,
    });
  });

  it("variance of equal numbers is 0", () => {
    // Sums of 0.1 are rounded, and so would be their mean.
    for (const dtype of ["float32", "float64", "bfloat16"] as const)
      for (const shape of [[1000], [300_000], [70, 3], [3, 70]]) {
        const x = t.full(shape, 0.1, { dtype });
        for (let axis = 0; axis < shape.length; axis++) {
          expect(new Set(t.variance(x, { axis, correction: 0 }).dataSync())).toEqual(new Set([0]));
          expect(new Set(t.std(x, { axis }).dataSync())).toEqual(new Set([0]));
        }
      }
  });

  it("prod goes through float64, so its parts may overflow", () => {
    const values = Array.from({ length: 64 }, (_, i) => (i % 16 < 8 ? 1e30 : 1e-30));
    expectClose([t.prod(t.tensor(values)).itemSync()], [values.reduce((a, b) => a * Math.fround(b), 1)], {
      rtol: 128 * unitRoundoff.float32,
    });
    expect([...t.grad((x: t.Tensor) => t.prod(x), t.tensor([2, 0, 3])).dataSync()]).toEqual([0, 6, 0]);
    expect([...t.grad((x: t.Tensor) => t.prod(x), t.tensor([0, 0, 3])).dataSync()]).toEqual([0, 0, 0]);
  });

  it("logSumExp is right at the ends", () => {
    const x = t.tensor([
      [-Infinity, -Infinity],
      [1000, 1000],
      [-1000, -1000],
      [Infinity, 0],
      [NaN, 0],
    ]);
    const expected = [-Infinity, 1000 + Math.LN2, -1000 + Math.LN2, Infinity, NaN];
    expectClose(t.logSumExp(x, { axis: 1 }).dataSync(), expected, { rtol: 2 * unitRoundoff.float32 });
    expectClose(t.logSumExp(x.T.clone(), { axis: 0 }).dataSync(), expected, { rtol: 2 * unitRoundoff.float32 });
    const dx = t.grad((y: t.Tensor) => t.logSumExp(y, { axis: 1 }).sum(), x.slice(0, 0, 2));
    expectClose(dx.dataSync(), [0, 0, 0.5, 0.5], { rtol: 4 * unitRoundoff.float32 * 1000 });
  });

  it("max and min take integers and bool, and keep NaN", () => {
    const x = t.tensor(Int32Array.of(3, -5, 2147483647, -2147483648, 0, 7), { shape: [2, 3] });
    expect([...t.max(x, { axis: 1 }).dataSync()]).toEqual([2147483647, 7]);
    expect([...t.min(x, { axis: 0 }).dataSync()]).toEqual([-2147483648, -5, 7]);
    expect(t.max(t.tensor(Uint8Array.of(3, 200, 7))).itemSync()).toBe(200);
    expect(t.min(t.tensor([1, NaN, 0])).itemSync()).toBeNaN();
  });

  it("any and all quantify, of nothing too", () => {
    const x = t.equal(
      t.tensor([
        [0, 0, 0],
        [0, 1, 0],
        [1, 1, 1],
      ]),
      1,
    );
    expect([...t.any(x, { axis: 1 }).dataSync()]).toEqual([0, 1, 1]);
    expect([...t.all(x, { axis: 1 }).dataSync()]).toEqual([0, 0, 1]);
    expect(t.any(x).dtype).toBe("bool");
    const none = t.equal(t.zeros([2, 0]), 1);
    expect([...t.any(none, { axis: 1 }).dataSync()]).toEqual([0, 0]);
    expect([...t.all(none, { axis: 1, keepDims: true }).dataSync()]).toEqual([1, 1]);
  });

  it("refuse an axis that is named twice, or is none", () => {
    const x = t.zeros([2, 3]);
    expect(() => t.sum(x, { axis: [0, -2] })).toThrow("[sum] each axis must be named once; received [0, -2]");
    expect(() => t.max(x, { axis: "0" as never })).toThrow('[max] expected an axis or an array of axes; received "0"');
  });

  it("gives the identities of nothing", () => {
    const none = t.zeros([2, 0]);
    expect([...t.prod(none, { axis: 1 }).dataSync()]).toEqual([1, 1]);
    expect([...t.logSumExp(none, { axis: 1 }).dataSync()]).toEqual([-Infinity, -Infinity]);
    expect(t.prod(none, { axis: 0 }).shape).toEqual([0]);
    expect(() => t.variance(none, { axis: 1 })).toThrow(/nothing to reduce/);
  });
});

describe("softmax and logSoftmax", () => {
  it("normalise along any axis, with equal results in every layout", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 600 }), (rows, n) => {
        t.scope(() => {
          const x = sample([rows, n], n, { dtype: "float32", low: -30, high: 30 });
          const y = t.softmax(x);
          expectClose(t.sum(y, { axis: 1 }).dataSync(), new Float32Array(rows).fill(1), {
            atol: sumError(n, "float32"),
          });
          expect([...t.softmax(x.T.clone(), { axis: 0 }).T.clone().dataSync()]).toEqual([...y.dataSync()]);
          // ln y is exact where y is not too small: a rounding of y counts once, one of x and of the sum relatively.
          const logs = t.logSoftmax(x).dataSync();
          const expected = y.dataSync().map(Math.log);
          expectClose(logs, expected, {
            atol: 8 * unitRoundoff.float32 + sumError(n, "float32"),
            rtol: 4 * unitRoundoff.float32,
          });
        });
      }),
      { numRuns: 40 },
    );
  });

  it("logSoftmax stays exact where the probability is 0, and far from zero", () => {
    expect([...t.logSoftmax(t.tensor([0, -1000])).dataSync()]).toEqual([0, -1000]);
    const y = t.logSoftmax(t.tensor([1e6, 1e6 + 1])).dataSync();
    const expected = [-1 - Math.log1p(Math.exp(-1)), -Math.log1p(Math.exp(-1))];
    expectClose(y, expected, { rtol: 4 * unitRoundoff.float32 });
    expect([...t.logSoftmax(t.tensor([-Infinity, -Infinity])).dataSync()]).toEqual([-Infinity, -Infinity]);
    expect([...t.logSoftmax(t.tensor([0, NaN])).dataSync()]).toEqual([NaN, NaN]);
  });
});
