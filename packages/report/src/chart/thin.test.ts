import { ShapeError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checkSeries, thin } from "./thin.js";

describe("thin", () => {
  it("keeps ends, extremes of every pixel column and gaps, in order", () => {
    const y = fc.array(
      fc.oneof({ weight: 9, arbitrary: fc.double({ noNaN: true, min: -9, max: 9 }) }, fc.constant(Number.NaN)),
      {
        minLength: 1,
        maxLength: 400,
      },
    );
    fc.assert(
      fc.property(y, fc.integer({ min: 1, max: 30 }), (values, buckets) => {
        const x = values.map((_, i) => i);
        const kept = thin({ name: "s", x, y: values }, (v) => v / values.length, buckets);
        expect(kept).toEqual([...new Set(kept)].sort((a, b) => a - b));
        expect(kept).toContain(0);
        expect(kept).toContain(values.length - 1);
        const shown = kept.map((i) => values[i]!);
        const finite = (list: number[]) => list.filter(Number.isFinite);
        expect(Math.max(...finite(shown))).toBe(Math.max(...finite(values)));
        expect(Math.min(...finite(shown))).toBe(Math.min(...finite(values)));
        expect(shown.some(Number.isNaN)).toBe(values.some(Number.isNaN));
        expect(kept.length).toBeLessThanOrEqual(5 * (buckets + 1));
      }),
    );
  });
});

describe("checkSeries", () => {
  it("names the array that is too short", () => {
    expect(() => checkSeries({ name: "arm", x: [1, 2], y: [1, 2], low: [1] })).toThrow(ShapeError);
    expect(() => checkSeries({ name: "arm", x: [1, 2], y: [1] })).toThrow('"arm" has 2 values of x but 1 of y');
  });
});
