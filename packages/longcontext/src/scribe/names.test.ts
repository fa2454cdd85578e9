import { Random } from "@llmeff/data";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { firmName, NAME_COUNT, NameStream, PLACE_COUNT, personName, placeName } from "./names.js";
import { Permutation } from "./permutation.js";
import { WordKeys } from "./word-keys.js";

describe("Permutation", () => {
  it("is a bijection of any size", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3000 }), fc.nat(), (size, seed) => {
        const order = new Permutation(size, new Random(seed, "permutation"));
        const seen = new Set(Array.from({ length: size }, (_, i) => order.at(i)));
        expect(seen.size).toBe(size);
        expect(Math.max(...seen)).toBe(size - 1);
      }),
    );
  });

  it("moves numbers everywhere, up to 2^32", () => {
    const order = new Permutation(2 ** 32, new Random(1, "permutation"));
    const values = Array.from({ length: 4000 }, (_, i) => order.at(i));
    const mean = values.reduce((sum, value) => sum + value / 2 ** 32, 0) / values.length;
    // The mean of 4000 uniform numbers has a standard deviation of 0.0046.
    expect(Math.abs(mean - 0.5)).toBeLessThan(0.02);
    expect(values.every((value) => Number.isInteger(value) && value >= 0 && value < 2 ** 32)).toBe(true);
  });

  it("refuses sizes that are none", () => {
    for (const size of [0, 1.5, 2 ** 32 + 1]) {
      expect(() => new Permutation(size, new Random(1, "x"))).toThrow(/size must be/);
    }
  });
});

describe("names", () => {
  it("are over 100,000 of each kind that people and places need, none twice", () => {
    expect(NAME_COUNT).toBeGreaterThanOrEqual(100_000);
    const people = new Set(Array.from({ length: NAME_COUNT }, (_, i) => personName(i)));
    const places = new Set(Array.from({ length: PLACE_COUNT }, (_, i) => placeName(i)));
    expect(people.size).toBe(NAME_COUNT);
    expect(places.size).toBe(PLACE_COUNT);
    expect([...people].filter((name) => places.has(name))).toEqual([]);
    expect(firmName(7)).toMatch(/^[A-Z][a-z]+$/);
  });

  it("go on with two words when one does not suffice", () => {
    const names = new NameStream(new Random(1, "names"), "firm");
    const all = Array.from({ length: 200_000 }, () => names.next());
    expect(new Set(all).size).toBe(all.length);
    expect(all.at(-1)).toMatch(/^\w+ \w+$/);
  });
});

describe("WordKeys", () => {
  it("are all different, of two words and then of three", () => {
    const keys = new WordKeys(new Random(1, "keys"));
    const all = Array.from({ length: 150_000 }, (_, i) => keys.at(i));
    expect(new Set(all).size).toBe(all.length);
    expect(all[0]).toMatch(/^[a-z]+-[a-z]+$/);
    expect(all.at(-1)).toMatch(/^[a-z]+-[a-z]+-[a-z]+$/);
  });
});
