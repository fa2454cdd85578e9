import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { counted, reader, table } from "../../test/plain.js";
import * as t from "../index.js";
import { scope, type Tensor } from "../index.js";

const values = (x: Tensor) => [...x.dataSync()];

describe("slice", () => {
  it("takes steps forwards and backwards", () => {
    const x = counted([7]);
    expect(values(t.slice(x, 0, 1, undefined, 2))).toEqual([1, 3, 5]);
    expect(values(t.slice(x, 0, 0, 7, 3))).toEqual([0, 3, 6]);
    expect(values(t.slice(x, 0, 0, 6, 3))).toEqual([0, 3]);
    expect(values(t.slice(x, 0, -1, undefined, -1))).toEqual([6, 5, 4, 3, 2, 1, 0]);
    expect(values(t.slice(x, 0, 5, 1, -2))).toEqual([5, 3]);
    expect(values(t.slice(x, 0, 3, 3, -1))).toEqual([]);
    expect(values(t.slice(t.zeros([0]), 0, 0, 0, 2))).toEqual([]);
    expect(values(t.slice(t.zeros([0]), 0, -1, undefined, -1))).toEqual([]);
  });

  it("is Array.prototype.slice on every stride, forwards", () => {
    fc.assert(
      fc.property(fc.nat(9), fc.nat(9), fc.integer({ min: 1, max: 4 }), (a, b, step) => {
        const [start, end] = [Math.min(a, b), Math.max(a, b)];
        const all = Array.from({ length: 9 }, (_, i) => i);
        const expected = all.slice(start, end).filter((_, i) => i % step === 0);
        scope(() => {
          expect(values(counted([9]).slice(0, start, end, step))).toEqual(expected);
          const columns = counted([9, 2]).slice(0, start, end, step).T;
          expect(values(columns.slice(0, 1))).toEqual(expected.map((i) => 2 * i + 1));
        });
      }),
    );
  });

  it.each([
    [() => t.slice(counted([3]), 0, 0, 3, 0), "step must be an integer other than 0"],
    [() => t.slice(counted([3]), 0, 0, 3, 0.5), "step must be an integer other than 0"],
    [() => t.slice(counted([3]), 0, 0, 2, -1), "0..2 in steps of -1 is no range"],
    [() => t.slice(counted([3]), 0, 3, undefined, -1), "3..the first in steps of -1 is no range"],
    [() => t.slice(counted([3]), 0, 0, 4, 2), "0..4 in steps of 2 is no range"],
  ])("refuses what is no range (%#)", (call, message) => {
    expect(call).toThrow(message);
  });
});

describe("flip", () => {
  it("turns axes around", () => {
    const x = counted([2, 3]);
    expect(values(t.flip(x, 1))).toEqual([2, 1, 0, 5, 4, 3]);
    expect(values(t.flip(x, [0, -1]))).toEqual([5, 4, 3, 2, 1, 0]);
    expect(values(t.flip(t.zeros([0, 2]), 0))).toEqual([]);
    expect(() => t.flip(x, [0, -2])).toThrow("named once");
  });

  it("is its own inverse, and goes through kernels as any view", () => {
    const x = counted([3, 4, 5]);
    for (const axes of [0, 1, 2, [0, 2], [0, 1, 2]]) {
      const y = t.flip(x, axes);
      expect(values(t.flip(y, axes))).toEqual(values(x));
      const at = reader(y);
      expect(values(y.add(1))).toEqual(table([3, 4, 5], (p) => at(p) + 1));
      expect(values(y.sum({ axis: 1 }))).toEqual(
        table([3, 5], ([i, k]) => [0, 1, 2, 3].reduce((s, j) => s + at([i!, j, k!]), 0)),
      );
      const square = y.slice(1, 0, 3).slice(2, 0, 3);
      const by = reader(square);
      expect(values(t.matmul(square, square))).toEqual(
        table([3, 3, 3], ([b, i, j]) => [0, 1, 2].reduce((s, k) => s + by([b!, i!, k]) * by([b!, k, j!]), 0)),
      );
    }
  });
});

describe("diagonal", () => {
  it("takes that of every matrix, also beside the main one", () => {
    const x = counted([2, 3, 4]);
    const at = reader(x);
    for (let offset = -4; offset <= 5; offset++) {
      const length = Math.max(0, Math.min(3 + Math.min(0, offset), 4 - Math.max(0, offset)));
      const y = t.diagonal(x, offset);
      expect(y.shape).toEqual([2, length]);
      const expected = table([2, length], ([b, i]) => at([b!, i! - Math.min(0, offset), i! + Math.max(0, offset)]));
      expect(values(y)).toEqual(expected);
    }
    expect(() => t.diagonal(counted([3]))).toThrow("[…, M, N]");
    expect(() => t.diagonal(x, 0.5)).toThrow("offset must be an integer");
  });
});

describe("split", () => {
  it("cuts an axis into equal parts or given ones", () => {
    const x = counted([2, 6]);
    expect(t.split(x, 3, 1).map(values)).toEqual([
      [0, 1, 6, 7],
      [2, 3, 8, 9],
      [4, 5, 10, 11],
    ]);
    expect(t.split(x, [1, 0, 1]).map((part) => part.shape)).toEqual([
      [1, 6],
      [0, 6],
      [1, 6],
    ]);
  });

  it("is undone by concat", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(4), { minLength: 1, maxLength: 5 }), (sizes) => {
        scope(() => {
          const x = counted([3, sizes.reduce((a, b) => a + b, 0)]);
          expect(values(t.concat(t.split(x, sizes, 1), 1))).toEqual(values(x));
        });
      }),
    );
  });

  it("has one gradient for all parts, with zeros where a part is not used", () => {
    const loss = (x: Tensor) => {
      const [a, , c] = t.split(x, [1, 2, 1]);
      return a!.mul(2).add(c!.mul(a!)).sum();
    };
    expect(values(t.grad(loss, t.tensor([3, 4, 5, 6])))).toEqual([8, 0, 0, 3]); // d/da (2a + c a) = 2 + c, d/dc = a
  });

  it("refuses parts that don't fill the axis", () => {
    const x = counted([5]);
    for (const parts of [2, 0, -1, 1.5, [2, 2], [6, -1]]) {
      expect(() => t.split(x, parts)).toThrow("add up to the 5 elements of axis 0 of [5]");
    }
  });
});

describe("pad", () => {
  it("puts a value around", () => {
    const x = t.tensor([
      [1, 2],
      [3, 4],
    ]);
    const y = t.pad(
      x,
      [
        [1, 0],
        [0, 2],
      ],
      9,
    );
    expect(y.shape).toEqual([3, 4]);
    expect(values(y)).toEqual([9, 9, 9, 9, 1, 2, 9, 9, 3, 4, 9, 9]);
    expect(values(t.pad(t.zeros([0]), [[1, 2]], 5))).toEqual([5, 5, 5]);
    expect(values(t.pad(t.tensor([1], { dtype: "bool" }), [[1, 0]]))).toEqual([0, 1]);
    expect(values(t.pad(t.tensor(7), []))).toEqual([7]);
  });

  it("refuses other widths", () => {
    for (const widths of [
      [],
      [
        [1, 1],
        [1, 1],
      ],
      [[1]],
      [[-1, 0]],
      [[0.5, 0]],
      3,
    ]) {
      expect(() => t.pad(counted([2]), widths as never)).toThrow("[before, after] of non-negative integers");
    }
  });
});

describe("roll", () => {
  it("moves elements round the end", () => {
    expect(values(t.roll(counted([5]), 2, 0))).toEqual([3, 4, 0, 1, 2]);
    expect(values(t.roll(counted([5]), -1, 0))).toEqual([1, 2, 3, 4, 0]);
    expect(values(t.roll(counted([5]), 10, 0))).toEqual([0, 1, 2, 3, 4]);
    expect(values(t.roll(counted([2, 3]), 1, 1))).toEqual([2, 0, 1, 5, 3, 4]);
    expect(t.roll(t.zeros([0, 2]), 1, 0).shape).toEqual([0, 2]);
    expect(() => t.roll(counted([2]), 0.5, 0)).toThrow("shift must be an integer");
  });
});

describe("tile and repeat", () => {
  it("set copies beside each other, or elements in a row", () => {
    const x = counted([2, 2]);
    expect(values(t.tile(x, [1, 2]))).toEqual([0, 1, 0, 1, 2, 3, 2, 3]);
    expect(values(t.tile(x, [2, 1]))).toEqual([0, 1, 2, 3, 0, 1, 2, 3]);
    expect(values(t.repeat(x, 2, 0))).toEqual([0, 1, 0, 1, 2, 3, 2, 3]);
    expect(values(t.repeat(x, 2, 1))).toEqual([0, 0, 1, 1, 2, 2, 3, 3]);
    expect(t.tile(x, [0, 3]).shape).toEqual([0, 6]);
    expect(t.repeat(x, 0, 1).shape).toEqual([2, 0]);
    expect(t.repeat(t.zeros([0, 3]), 2, 0).shape).toEqual([0, 3]);
    expect(() => t.tile(x, [2])).toThrow("each of the 2 axes");
    expect(() => t.repeat(x, -1, 0)).toThrow("times must be a non-negative integer");
  });

  it("agree with their definitions on strided views", () => {
    const x = counted([3, 2, 4]).permute([2, 0, 1]);
    const at = reader(x);
    expect(values(t.tile(x, [2, 1, 3]))).toEqual(table([8, 3, 6], ([i, j, k]) => at([i! % 4, j!, k! % 2])));
    expect(values(t.repeat(x, 3, 1))).toEqual(table([4, 9, 2], ([i, j, k]) => at([i!, Math.floor(j! / 3), k!])));
  });
});

describe("stack", () => {
  it("makes a new axis", () => {
    const [a, b] = [counted([2]), counted([2]).add(5)];
    expect(values(t.stack([a, b]))).toEqual([0, 1, 5, 6]);
    expect(values(t.stack([a, b], -1))).toEqual([0, 5, 1, 6]);
    expect(t.stack([t.tensor(1), t.tensor(2)]).shape).toEqual([2]);
    expect(() => t.stack([])).toThrow("at least one tensor");
    expect(() => t.stack([a, counted([3])])).toThrow("[stack] shapes must be equal; received [2] and [3].");
  });
});
