import { OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fillUniform } from "./philox-fill.js";
import { Random, streamOf } from "./random.js";

describe("streamOf", () => {
  it("is FNV-1a-64 of the purpose plus the index", () => {
    // Published test vectors of FNV-1a-64: "" and "foobar".
    expect(streamOf("")).toBe(0xcbf29ce484222325n);
    expect(streamOf("foobar")).toBe(0x85944171f73967e8n);
    expect(streamOf("foobar", 5)).toBe(0x85944171f73967e8n + 5n);
  });

  it("refuses an index that is no count", () => {
    expect(() => streamOf("a", -1)).toThrow(OptionError);
  });
});

/** Pearson's statistic of counts of which each is expected to be the same. */
function chiSquared(counts: Iterable<number>, expected: number): number {
  return [...counts].reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
}

/** What the statistic of six counts stays below with 99.99 % (5 degrees of freedom). */
const quantile = 25.7;

describe("Random", () => {
  it("draws element i of fillUniform in its i-th call", () => {
    const random = new Random(11, "test", 3);
    const expected = fillUniform(new Float64Array(9), { seed: 11, stream: streamOf("test", 3) });
    expect(Float64Array.from({ length: 9 }, () => random.uniform())).toEqual(expected);
  });

  it("continues identically from a stored position", () => {
    const first = new Random(1, "resume");
    for (let i = 0; i < 7; i++) first.uint32();
    const second = new Random(1, "resume");
    second.position = first.position;
    expect([second.normal(), second.integer(0, 1000)]).toEqual([first.normal(), first.integer(0, 1000)]);
  });

  it("differs between seeds, purposes and indices", () => {
    const draws = [new Random(1, "a", 0), new Random(2, "a", 0), new Random(1, "b", 0), new Random(1, "a", 1)].map(
      (r) => r.uint32(),
    );
    expect(new Set(draws).size).toBe(draws.length);
  });

  it("draws integers of a range equally often", () => {
    const random = new Random(5, "integer");
    const counts = new Array<number>(6).fill(0);
    for (let i = 0; i < 12_000; i++) counts[random.integer(0, 6)]! += 1;
    expect(chiSquared(counts, 2000)).toBeLessThan(quantile);
  });

  it("stays inside any range, also beyond 32 bits", () => {
    fc.assert(
      fc.property(fc.integer({ min: -(2 ** 40), max: 2 ** 40 }), fc.integer({ min: 1, max: 2 ** 50 }), (low, count) => {
        const value = new Random(8, "range", count).integer(low, low + count);
        expect(Number.isInteger(value) && value >= low && value < low + count).toBe(true);
      }),
    );
  });

  it("throws away draws beyond the last full multiple", () => {
    // 2^32 mod (2^31 + 1) = 2^31 - 1: nearly half of the draws must be refused, so more than one word a number is used.
    const random = new Random(2, "reject");
    for (let i = 0; i < 1000; i++) random.integer(0, 2 ** 31 + 1);
    // The number of words is geometric with p = 1/2: mean 2000, standard deviation sqrt(2000).
    expect(Math.abs(random.position - 2000)).toBeLessThan(5 * Math.sqrt(2000));
  });

  it("permutes: every number once", () => {
    fc.assert(
      fc.property(fc.nat(300), fc.nat(), (count, seed) => {
        const order = new Random(seed, "permutation").permutation(count);
        expect(order.slice().sort()).toEqual(Int32Array.from({ length: count }, (_, i) => i));
      }),
    );
  });

  it("reaches all orders of three about equally often", () => {
    const counts = new Map<string, number>();
    for (let i = 0; i < 6000; i++) {
      const order = new Random(0, "orders", i).permutation(3).join("");
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(6);
    // Exchanging each with any other, a usual mistake, has 4/27 and 5/27 for 1/6 and a statistic of 74.
    expect(chiSquared(counts.values(), 1000)).toBeLessThan(quantile);
  });

  it("refuses an empty range and a negative count", () => {
    expect(() => new Random(0, "a").integer(3, 3)).toThrow("[Random.integer]");
    expect(() => new Random(0, "a").permutation(-1)).toThrow(OptionError);
  });
});
