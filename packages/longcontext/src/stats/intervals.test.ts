import { NonFiniteError, OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { meanInterval, normalInterval, wilsonInterval } from "./intervals.js";

describe("wilsonInterval", () => {
  it("solves the equation it comes from: the bounds are z standard errors from the share", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5000 }), fc.double({ min: 0, max: 1, noNaN: true }), (n, part) => {
        const k = Math.round(n * part);
        for (const bound of wilsonInterval(k, n)) {
          const z = (bound - k / n) / Math.sqrt((bound * (1 - bound)) / n || 1);
          if (bound > 0 && bound < 1) expect(Math.abs(z)).toBeCloseTo(1.959963984540054, 6);
        }
      }),
    );
  });

  it("covers the share, mirrors, and narrows with n", () => {
    fc.assert(
      fc.property(fc.nat(300), fc.nat(300), (k, misses) => {
        const n = k + misses;
        const [low, high] = wilsonInterval(k, n);
        expect(low).toBeGreaterThanOrEqual(0);
        expect(high).toBeLessThanOrEqual(1);
        const [mirrorLow, mirrorHigh] = wilsonInterval(misses, n);
        expect([1 - mirrorHigh, 1 - mirrorLow]).toEqual([expect.closeTo(low, 12), expect.closeTo(high, 12)]);
        if (n > 0) {
          const [lowOfTen, highOfTen] = wilsonInterval(10 * k, 10 * n);
          expect(highOfTen - lowOfTen).toBeLessThan(high - low);
          expect(low <= k / n && k / n <= high).toBe(true);
        }
      }),
    );
  });

  it("refuses more successes than trials", () => {
    expect(() => wilsonInterval(2, 1)).toThrow(OptionError);
    expect(() => wilsonInterval(-1, 1)).toThrow(OptionError);
    expect(() => wilsonInterval(Number.NaN, 1)).toThrow(OptionError);
  });
});

describe("meanInterval", () => {
  it("is Wilson's for right and wrong, the normal one for anything between", () => {
    const [low, high] = wilsonInterval(2, 3);
    expect(meanInterval([1, 0, 1])).toEqual({ n: 3, mean: 2 / 3, low, high });
    expect(meanInterval([1, 0, 0.5])).toEqual(normalInterval([1, 0, 0.5]));
    expect(meanInterval([1])).toMatchObject({ n: 1, mean: 1, high: 1 });
  });

  it("has no interval for one score and no mean for none", () => {
    expect(meanInterval([0.5])).toEqual({ n: 1, mean: 0.5, low: null, high: null });
    expect(meanInterval([])).toEqual({ n: 0, mean: null, low: null, high: null });
  });

  it("refuses NaN", () => {
    expect(() => meanInterval([1, Number.NaN])).toThrow(NonFiniteError);
  });
});
