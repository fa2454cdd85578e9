import { describe, expect, it } from "vitest";
import { counted, reader, table } from "../../test/plain.js";
import type { Tensor } from "../index.js";
import * as t from "../index.js";

const values = (x: Tensor) => [...x.dataSync()];

describe("triu and tril", () => {
  it("keep one side of a diagonal", () => {
    const x = t.tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    expect(values(t.triu(x))).toEqual([1, 2, 3, 0, 5, 6]);
    expect(values(t.tril(x))).toEqual([1, 0, 0, 4, 5, 0]);
    expect(
      values(
        t.tril(
          t.tensor(
            [
              [1, 1],
              [1, 1],
            ],
            { dtype: "bool" },
          ),
        ),
      ),
    ).toEqual([1, 0, 1, 1]);
    expect(t.triu(t.zeros([2, 0, 3])).shape).toEqual([2, 0, 3]);
  });

  it("agree with their definitions for every diagonal, and replace what isn't finite", () => {
    const x = counted([2, 3, 4]).add(1).transpose(0, 2);
    const at = reader(x);
    for (const k of [-1e9, -4, -3, -1, 0, 1, 2, 3, 1e9]) {
      expect(values(t.triu(x, k)), `triu ${k}`).toEqual(table(x.shape, (p) => (p[2]! - p[1]! >= k ? at(p) : 0)));
      expect(values(t.tril(x, k)), `tril ${k}`).toEqual(table(x.shape, (p) => (p[2]! - p[1]! <= k ? at(p) : 0)));
    }
    expect(values(t.triu(t.full([2, 2], Number.NaN), 2))).toEqual([0, 0, 0, 0]);
  });

  it("refuse vectors and fractions", () => {
    expect(() => t.triu(counted([3]))).toThrow("[triu] expected x […, M, N]; received [3].");
    expect(() => t.tril(counted([3, 3]), 0.5)).toThrow("[tril] k must be an integer; received 0.5.");
  });
});

describe("maskedFill", () => {
  const mask = t.equal(t.tensor([1, 0, 1]), 1);

  it("puts a value where the mask is true", () => {
    expect(values(t.maskedFill(counted([2, 3]), mask, -1))).toEqual([-1, 1, -1, -1, 4, -1]);
    expect(values(t.maskedFill(counted([3], "int32"), mask, 9))).toEqual([9, 1, 9]);
    expect(values(t.maskedFill(t.tensor([Number.NaN, 1, 2]), mask, Number.NEGATIVE_INFINITY))[0]).toBe(-Infinity);
    const grad = t.grad((x: Tensor) => t.maskedFill(x, mask, 7).sum(), t.ones([2, 3]));
    expect(values(grad)).toEqual([0, 1, 0, 0, 1, 0]);
  });

  it("refuses a mask that isn't bool or is larger than x", () => {
    expect(() => t.maskedFill(counted([3]), counted([3]), 0)).toThrow("mask must be bool; received float64");
    expect(() => t.maskedFill(counted([1]), mask, 0)).toThrow("mask [3] doesn't broadcast to x [1]");
    expect(() => t.maskedFill(counted([3]), mask, "0" as never)).toThrow("value must be a number; received string");
  });
});
