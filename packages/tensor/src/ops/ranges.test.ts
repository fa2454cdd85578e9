import { describe, expect, it } from "vitest";
import type { Tensor } from "../index.js";
import * as t from "../index.js";

const values = (x: Tensor) => [...x.dataSync()];

describe("arange", () => {
  it("counts, by default from 0 in steps of 1, int32 if all is whole", () => {
    expect(t.arange(4)).toMatchObject({ shape: [4], dtype: "int32" });
    expect(values(t.arange(4))).toEqual([0, 1, 2, 3]);
    expect(values(t.arange(2, 5))).toEqual([2, 3, 4]);
    expect(values(t.arange(5, 0, { step: -2 }))).toEqual([5, 3, 1]);
    expect(t.arange(0, 1, { step: 0.25 })).toMatchObject({ shape: [4], dtype: "float32" });
    expect(values(t.arange(3, { dtype: "float64" }))).toEqual([0, 1, 2]);
    expect(values(t.arange(3, 1))).toEqual([]);
  });

  it("computes each number on its own", () => {
    const x = t.arange(0, 100, { step: 0.1, dtype: "float64" }).dataSync();
    expect(x.length).toBe(1000);
    expect(x.every((v, i) => v === i * 0.1)).toBe(true);
  });

  it("refuses a step of 0 and what is no number", () => {
    expect(() => t.arange(0, 2, { step: 0 })).toThrow("[arange] step must not be 0");
    expect(() => t.arange(Number.NaN)).toThrow("[arange] end must be a finite number; received NaN.");
    expect(() => t.arange(2 ** 50)).toThrow(t.OutOfMemoryError);
    expect(() => t.arange(3, { dtype: "int" as never })).toThrow(t.DTypeError);
    expect(() => t.arange("3" as never)).toThrow("[arange] end must be a finite number");
  });
});

describe("linspace", () => {
  it("reaches both ends exactly", () => {
    expect(values(t.linspace(0, 1, 5))).toEqual([0, 0.25, 0.5, 0.75, 1]);
    expect(values(t.linspace(3, -1, 2))).toEqual([3, -1]);
    expect(values(t.linspace(3, 9, 1))).toEqual([3]);
    expect(values(t.linspace(3, 9, 0))).toEqual([]);
    const x = t.linspace(0.1, 0.7, 1001, { dtype: "float64" }).dataSync();
    expect([x[0], x[1000]]).toEqual([0.1, 0.7]);
    expect(x.every((v, i) => i === 0 || v > x[i - 1]!)).toBe(true);
    expect(() => t.linspace(0, 1, -1)).toThrow("count must be a non-negative integer");
    expect(() => t.linspace(0, Number.POSITIVE_INFINITY, 2)).toThrow("[linspace] end must be a finite number");
  });
});

describe("eye", () => {
  it("has ones on the diagonal", () => {
    expect(values(t.eye(2))).toEqual([1, 0, 0, 1]);
    expect(t.eye(2, 3, { dtype: "int32" })).toMatchObject({ shape: [2, 3], dtype: "int32" });
    expect(values(t.eye(3, 2))).toEqual([1, 0, 0, 1, 0, 0]);
    expect(t.eye(0).shape).toEqual([0, 0]);
    expect(() => t.eye(1.5)).toThrow("[eye] rows must be a non-negative integer");
  });
});
