import { describe, expect, it } from "vitest";
import { expectClose, largest, unitRoundoff } from "../../test/compare.js";
import { sample } from "../../test/numbers.js";
import * as t from "../index.js";
import { scope, type Tensor } from "../index.js";

const values = (x: Tensor) => [...x.dataSync()];

/** Running sums in float64 along the axis of a `[lead, n, tail]` array. */
function running(data: ArrayLike<number>, lead: number, n: number, tail: number, reverse: boolean): Float64Array {
  const out = new Float64Array(data.length);
  for (let a = 0; a < lead; a++)
    for (let c = 0; c < tail; c++) {
      let sum = 0;
      for (let k = 0; k < n; k++) {
        const at = (a * n + (reverse ? n - 1 - k : k)) * tail + c;
        sum += data[at]!;
        out[at] = sum;
      }
    }
  return out;
}

describe("cumsum", () => {
  it("computes a worked example", () => {
    const x = t.tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    expect(values(t.cumsum(x, 1))).toEqual([1, 3, 6, 4, 9, 15]);
    expect(values(t.cumsum(x, 0))).toEqual([1, 2, 3, 5, 7, 9]);
    expect(values(t.cumsum(x, -1, { reverse: true }))).toEqual([6, 5, 3, 15, 11, 6]);
    expect(values(t.cumsum(t.tensor(Int32Array.of(2 ** 31 - 1, 1)), 0))).toEqual([2 ** 31 - 1, -(2 ** 31)]);
    expect(t.cumsum(t.zeros([2, 0]), 1).shape).toEqual([2, 0]);
  });

  // Rows alone and in fours, pieces of long rows, columns about the widths of vectors and bands.
  it.each([
    [1, 1, 1],
    [1, 10_000, 1],
    [3, 4097, 1],
    [5, 129, 1],
    [65, 5000, 1],
    [1, 9, 7],
    [2, 31, 17],
    [3, 5, 257],
    [1, 300, 520],
  ])("adds up [%i, %i, %i] along the middle axis", (lead, n, tail) => {
    for (const dtype of ["float32", "float64"] as const)
      for (const reverse of [false, true])
        scope(() => {
          const x = sample([lead, n, tail], 1, { dtype });
          const expected = running(x.dataSync(), lead, n, tail, reverse);
          // Sums are kept in float64, whose rounding errors add up, and rounded once.
          const atol = (n * unitRoundoff.float64 + unitRoundoff[dtype]) * largest(expected);
          expectClose(t.cumsum(x, 1, { reverse }).dataSync(), expected, { atol }, `${dtype}`);
          const view = t.flip(x.transpose(0, 2).clone(), 1).transpose(0, 2);
          const turned = t.flip(t.cumsum(view, 1, { reverse: !reverse }), 1);
          expectClose(turned.dataSync(), expected, { atol }, `${dtype}, a view`);
        });
  });

  it("carries NaN and infinity on", () => {
    const long = new Float32Array(10_000).fill(1);
    long[5000] = Number.NaN;
    const sums = t.cumsum(t.tensor(long), 0).dataSync();
    expect(sums[4999]).toBe(5000);
    expect(sums.subarray(5000).every(Number.isNaN)).toBe(true);
    const { POSITIVE_INFINITY: inf } = Number;
    expect(values(t.cumsum(t.tensor([1, inf, 2, -inf, 3]), 0))).toEqual([1, inf, inf, Number.NaN, Number.NaN]);
  });

  it("refuses other dtypes and scalars", () => {
    expect(() => t.cumsum(t.zeros([2], { dtype: "bool" }), 0)).toThrow(
      "[cumsum] x must have a floating-point dtype; received bool",
    );
    expect(() => t.cumsum(t.tensor(1), 0)).toThrow("axis must be an integer");
  });
});
