import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RatioEstimator } from "./ratio.js";

function estimate(pairs: readonly (readonly [sum: number, count: number])[]) {
  const estimator = new RatioEstimator();
  for (const [sum, count] of pairs) estimator.add(sum, count);
  return estimator.estimate();
}

describe("RatioEstimator", () => {
  it("is right by hand", () => {
    // Two sequences: 6 over 2 targets, 3 over 4. R = 9/6 = 1.5; residuals 6 - 3 = 3 and 3 - 6 = -3.
    // Variance 2/1 · (9 + 9) / 36 = 1.
    expect(
      estimate([
        [6, 2],
        [3, 4],
      ]),
    ).toEqual({ mean: 1.5, standardError: 1, count: 6 });
  });

  it("is the standard error of the mean for sequences of equal length", () => {
    const finite = fc.double({ min: -100, max: 100, noNaN: true });
    fc.assert(
      fc.property(
        fc.array(finite, { minLength: 2, maxLength: 30 }),
        fc.integer({ min: 1, max: 9 }),
        (means, length) => {
          const { mean, standardError } = estimate(means.map((m) => [m * length, length] as const));
          const expected = means.reduce((a, b) => a + b, 0) / means.length;
          const variance = means.reduce((sum, m) => sum + (m - expected) ** 2, 0) / (means.length - 1);
          expect(mean).toBeCloseTo(expected, 9);
          expect(standardError).toBeCloseTo(Math.sqrt(variance / means.length), 6);
        },
      ),
    );
  });

  it("passes over sequences without targets", () => {
    expect(
      estimate([
        [6, 2],
        [0, 0],
        [3, 4],
      ]),
    ).toEqual(
      estimate([
        [6, 2],
        [3, 4],
      ]),
    );
  });

  it("has no standard error for one sequence, and no mean for none", () => {
    expect(estimate([[6, 2]])).toEqual({ mean: 3, standardError: Number.NaN, count: 2 });
    expect(estimate([])).toEqual({ mean: Number.NaN, standardError: Number.NaN, count: 0 });
  });
});
