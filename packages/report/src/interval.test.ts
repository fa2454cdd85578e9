import { describe, expect, it } from "vitest";
import { studentHalfWidth, studentInterval } from "./interval.js";

describe("studentInterval", () => {
  it("is the mean plus and minus the quantile times its standard error", () => {
    // Mean 3; deviations −2, 0, 2: variance 8/2 = 4; standard error √(4/3); t = 4.3027 for two degrees of freedom.
    const { mean, low, high } = studentInterval([1, 3, 5]);
    expect(mean).toBe(3);
    expect(high).toBeCloseTo(3 + 4.3027 * Math.sqrt(4 / 3), 12);
    expect(low).toBeCloseTo(3 - 4.3027 * Math.sqrt(4 / 3), 12);
  });

  it("is a point where all values are equal, and has no ends for fewer than two values", () => {
    expect(studentInterval([2, 2, 2])).toEqual({ mean: 2, low: 2, high: 2 });
    expect(studentInterval([2])).toEqual({ mean: 2, low: Number.NaN, high: Number.NaN });
    expect(studentInterval([]).mean).toBeNaN();
  });
});

describe("studentHalfWidth", () => {
  // Quantiles of published tables; the first is tan(0.475 π) exactly.
  it.each([
    [1, Math.tan(0.475 * Math.PI)],
    [2, 4.30265],
    [9, 2.26216],
    [20, 2.08596],
    [21, 2.07961],
    [30, 2.04227],
    [60, 2.000298],
    [1000, 1.96234],
    [1e9, 1.959964],
  ])("knows the quantile of %i degrees of freedom", (freedom, quantile) => {
    expect(Math.abs(studentHalfWidth(1, freedom) - quantile)).toBeLessThan(5e-5);
  });
});
