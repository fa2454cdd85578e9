import { OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { feistelOrder, shuffledOrder } from "./shuffled-order.js";

const all = (count: number, at: (place: number) => number) => Array.from({ length: count }, (_, place) => at(place));
const sorted = (values: number[]) => values.toSorted((a, b) => a - b);

describe("shuffledOrder", () => {
  it("has every number once, held or computed", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 600 }), fc.nat(), (count, seed) => {
        const numbers = [...Array(count).keys()];
        expect(sorted(all(count, shuffledOrder(count, seed, "test").at))).toEqual(numbers);
        expect(sorted(all(count, feistelOrder(count, seed, "test", 0)))).toEqual(numbers);
      }),
    );
  });

  it("depends on seed, purpose and index alone", () => {
    const order = (seed: number, purpose: string, index: number) =>
      all(200, feistelOrder(200, seed, purpose, index)).join();
    expect(order(1, "a", 2)).toBe(order(1, "a", 2));
    expect(new Set([order(1, "a", 2), order(2, "a", 2), order(1, "b", 2), order(1, "a", 3)]).size).toBe(4);
  });

  it("computes the order of more numbers than it would hold, without long runs", () => {
    const count = 3e12;
    const order = shuffledOrder(count, 4, "test");
    const numbers = all(4000, order.at);
    expect(new Set(numbers).size).toBe(4000);
    for (const number of numbers) expect(Number.isSafeInteger(number) && number >= 0 && number < count).toBe(true);
    // Uniform: a mean of ½ with a deviation of 1/√(12 · 4000) = 0.0046, and neighbours on either side alike.
    const mean = numbers.reduce((a, b) => a + b, 0) / 4000 / count;
    expect(Math.abs(mean - 0.5)).toBeLessThan(4 * 0.0046);
    const rises = numbers.filter((number, i) => i > 0 && number > numbers[i - 1]!).length;
    expect(Math.abs(rises - 2000)).toBeLessThan(4 * 32);
  });

  it("refuses places outside", () => {
    const order = shuffledOrder(3, 0, "test");
    for (const place of [-1, 3, 0.5, Number.NaN]) expect(() => order.at(place)).toThrow(OptionError);
    expect(() => shuffledOrder(-1, 0, "test")).toThrow(OptionError);
  });
});
