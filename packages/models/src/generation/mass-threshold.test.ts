import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { massThreshold } from "./mass-threshold.js";

describe("massThreshold", () => {
  it("finds the value at which the mass is reached", () => {
    // From the largest down: 4, 7, 9, 11, 12.
    const values = Float64Array.of(2, 4, 1, 3, 2);
    const at = (target: number) => massThreshold(values, target);
    expect(at(0.1)).toEqual({ value: 4, above: 0 });
    expect(at(4)).toEqual({ value: 4, above: 0 });
    expect(at(4.5)).toEqual({ value: 3, above: 4 });
    expect(at(8)).toEqual({ value: 2, above: 7 });
    expect(at(11)).toEqual({ value: 2, above: 7 });
    expect(at(12)).toEqual({ value: 1, above: 11 });
    expect([...values]).toEqual([2, 4, 1, 3, 2]);
  });

  it("takes the smallest value with a mass where there isn't as much", () => {
    expect(massThreshold(Float64Array.of(0, 3, 2, 0), 6)).toEqual({ value: 2, above: 3 });
    expect(massThreshold(Float64Array.of(0.5), 1)).toEqual({ value: 0.5, above: 0 });
  });

  it("counts, of values of any sign and size", () => {
    const special = fc.constantFrom(
      0,
      -0,
      Number.NEGATIVE_INFINITY,
      Number.POSITIVE_INFINITY,
      Number.MIN_VALUE,
      -1e-310,
    );
    const value = fc.oneof(special, fc.double({ noNaN: true }), fc.integer({ min: -3, max: 3 }));
    const some = fc.array(value, { minLength: 1, maxLength: 60 });
    fc.assert(
      fc.property(some, fc.nat(), (values, n) => {
        const k = 1 + (n % values.length);
        const found = massThreshold(Float64Array.from(values), k, { counted: true });
        const kth = values.toSorted((a, b) => b - a)[k - 1]!;
        expect(found.value === kth).toBe(true);
        // Zeros of both signs are equal, and yet have an order here.
        if (kth !== 0) expect(found.above).toBe(values.filter((x) => x > kth).length);
      }),
    );
  });

  it("tells values apart that differ in their last bit, wherever it is", () => {
    for (let bit = 0; bit < 52; bit++) {
      const [low, high] = [1, 1 + 2 ** (bit - 52)];
      expect(massThreshold(Float64Array.of(low, high, low), 1, { counted: true })).toEqual({ value: high, above: 0 });
      expect(massThreshold(Float64Array.of(low, high, low), 2, { counted: true })).toEqual({ value: low, above: 1 });
    }
  });
});
