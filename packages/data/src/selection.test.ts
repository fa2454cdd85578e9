import { OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { scoreThreshold, selectBand, selectPerShard, selectTop } from "./selection.js";

const never = Number.NEGATIVE_INFINITY;
const scores = fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 50 });

describe("selectTop", () => {
  it("takes the highest, equal ones by number, and never −∞", () => {
    expect(selectTop([1, 3, never, 3, 2], 3)).toEqual([1, 3, 4]);
    expect(selectTop([1, never], 2)).toEqual([0]);
    expect(() => selectTop([1, Number.NaN], 1)).toThrow("score 1 is NaN");
    expect(() => selectTop([1], -1)).toThrow(OptionError);
  });
});

describe("selectTop with groups", () => {
  it("takes at most so many of a group", () => {
    const options = { groups: ["a", "a", "a", "b", "b"], mostPerGroup: 2 };
    expect(selectTop([5, 4, 3, 2, 1], 4, options)).toEqual([0, 1, 3, 4]);
    expect(selectTop([5, 4, 3, 2, 1], 3, { groups: [0, 0, 0, 1, 1] })).toEqual([0, 3]);
  });
});

describe("selectPerShard", () => {
  it("takes a fraction of each shard, in order", () => {
    expect(selectPerShard([1, 4, 2, 9, 8, 7, 5], 0.5, 3)).toEqual([1, 2, 3, 4, 6]);
    expect(() => selectPerShard([1], 0, 3)).toThrow(OptionError);
    const shard = Array.from({ length: 100 }, (_, i) => i);
    for (let percent = 1; percent <= 100; percent++) {
      expect(selectPerShard(shard, percent / 100, 100), `${percent} %`).toHaveLength(percent);
      expect(scoreThreshold(shard, percent / 100), `${percent} %`).toBe(100 - percent);
    }
  });
});

describe("scoreThreshold", () => {
  it("is the score from which on the fraction lies", () => {
    fc.assert(
      fc.property(scores, fc.double({ min: 0.01, max: 1, noNaN: true }), (sample, fraction) => {
        const threshold = scoreThreshold(sample, fraction);
        const wanted = Math.ceil(sample.length * fraction);
        expect(sample.filter((score) => score >= threshold).length).toBeGreaterThanOrEqual(wanted);
        expect(sample.filter((score) => score > threshold).length).toBeLessThan(wanted);
      }),
    );
    expect(() => scoreThreshold([], 0.5)).toThrow("received none");
    expect(scoreThreshold([never, 2, never, 1], 0.25)).toBe(2);
    expect(scoreThreshold([never, 2, never, 1], 0.75)).toBe(1);
    expect(scoreThreshold([never], 1)).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("selectBand", () => {
  it("cuts into bands that together are the whole", () => {
    fc.assert(
      fc.property(scores, fc.double({ min: 0.01, max: 0.99, noNaN: true }), (sample, cut) => {
        const both = [...selectBand(sample, 0, cut), ...selectBand(sample, cut, 1)];
        expect(both.toSorted((a, b) => a - b)).toEqual([...sample.keys()]);
      }),
    );
    expect(selectBand([5, 1, 4, 2, 3], 0.2, 0.6)).toEqual([3, 4]);
    expect(selectBand([never, 2, 1, never, 4, 3], 0, 0.5)).toEqual([1, 2]);
    expect(() => selectBand([1], 0.5, 0.5)).toThrow(OptionError);
  });
});
