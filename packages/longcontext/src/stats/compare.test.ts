import { NonFiniteError, OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bradleyTerry, winProbability } from "./bradley-terry.js";
import { pairedComparison } from "./paired-comparison.js";
import { averageRanks, spearman } from "./spearman.js";

describe("spearman", () => {
  it("shares the ranks of equal values", () => {
    expect(averageRanks([3, 1, 3, 2])).toEqual([3.5, 1, 3.5, 2]);
  });

  it("doesn't see monotone maps, and turns its sign with the order", () => {
    const values = fc.array(fc.integer({ min: -20, max: 20 }), { minLength: 2, maxLength: 20 });
    fc.assert(
      fc.property(values, values, (xs, ys) => {
        const n = Math.min(xs.length, ys.length);
        const [x, y] = [xs.slice(0, n), ys.slice(0, n)];
        const rho = spearman(x, y);
        if (rho === null) return;
        expect(Math.abs(rho)).toBeLessThanOrEqual(1 + 1e-12);
        expect(spearman(y, x)).toBeCloseTo(rho, 12);
        expect(
          spearman(
            x.map((value) => value ** 3),
            y.map(Math.exp),
          ),
        ).toBeCloseTo(rho, 12);
        expect(
          spearman(
            x.map((value) => -value),
            y,
          ),
        ).toBeCloseTo(-rho, 12);
      }),
    );
  });

  it("has no value for a constant side", () => {
    expect(spearman([1, 1], [1, 2])).toBeNull();
    expect(spearman([], [])).toBeNull();
    expect(() => spearman([1], [1, 2])).toThrow(OptionError);
    expect(() => spearman([1, Number.NaN], [1, 2])).toThrow(NonFiniteError);
  });
});

describe("bradleyTerry", () => {
  it("gives two systems the ratio of their wins", () => {
    const [a, b] = bradleyTerry([
      [0, 3],
      [1, 0],
    ]);
    expect(a! / b!).toBeCloseTo(3, 12);
    expect(a! * b!).toBeCloseTo(1, 12);
  });

  it("is a fixed point of Zermelo's iteration, with geometric mean 1", () => {
    const tables = fc.integer({ min: 2, max: 7 }).chain((n) =>
      fc.array(fc.array(fc.integer({ min: 1, max: 400 }), { minLength: n, maxLength: n }), {
        minLength: n,
        maxLength: n,
      }),
    );
    fc.assert(
      fc.property(tables, (wins) => {
        const strengths = bradleyTerry(wins) as number[];
        expect(strengths.reduce((sum, s) => sum + Math.log(s), 0)).toBeCloseTo(0, 10);
        for (const [i, s] of strengths.entries()) {
          let won = 0;
          let expected = 0;
          for (const [j, other] of strengths.entries()) {
            if (i === j) continue;
            won += wins[i]![j]!;
            expected += (wins[i]![j]! + wins[j]![i]!) / (s + other);
          }
          expect(won / expected / s).toBeCloseTo(1, 9);
        }
      }),
    );
  });

  it("finds strengths that are far apart, and groups that met but once", () => {
    expect(
      bradleyTerry([
        [0, 1e9],
        [1, 0],
      ])[0],
    ).toBeCloseTo(Math.sqrt(1e9), 3);
    // Two even groups; of their two games each won one, so all are equal.
    const groups = bradleyTerry([
      [0, 1e6, 1, 0],
      [1e6, 0, 0, 0],
      [1, 0, 0, 1e6],
      [0, 0, 1e6, 0],
    ]);
    for (const strength of groups) expect(strength).toBeCloseTo(1, 9);
    // A chain in which each is a thousand times as strong as the next.
    const chain = Array.from({ length: 6 }, (_, i) =>
      Array.from({ length: 6 }, (_, j) => (j === i + 1 ? 1000 : j === i - 1 ? 1 : 0)),
    );
    const strengths = bradleyTerry(chain) as number[];
    for (let i = 1; i < 6; i++) expect(strengths[i - 1]! / strengths[i]!).toBeCloseTo(1000, 5);
  });

  it("has no strength for a system without wins or losses, and the others keep theirs", () => {
    const pair = bradleyTerry([
      [0, 3],
      [1, 0],
    ]);
    expect(
      bradleyTerry([
        [0, 3, 5, 0],
        [1, 0, 2, 0],
        [0, 0, 0, 0],
        [4, 4, 4, 0],
      ]),
    ).toEqual([...pair, null, null]);
    expect(bradleyTerry([[0]])).toEqual([null]);
    expect(bradleyTerry([])).toEqual([]);
  });

  it("has none between groups of which one never beat the other", () => {
    const strengths = bradleyTerry([
      [0, 1, 5, 5, 5],
      [1, 0, 5, 5, 5],
      [0, 0, 0, 2, 1],
      [0, 0, 1, 0, 2],
      [0, 0, 2, 1, 0],
    ]);
    expect(strengths.slice(0, 2)).toEqual([null, null]);
    for (const strength of strengths.slice(2)) expect(strength).toBeCloseTo(1, 12);
  });

  it("refuses tables that aren't square or have negative counts", () => {
    expect(() => bradleyTerry([[0, 1]])).toThrow(OptionError);
    expect(() =>
      bradleyTerry([
        [0, -1],
        [1, 0],
      ]),
    ).toThrow(OptionError);
    expect(() =>
      bradleyTerry([
        [0, Number.NaN],
        [1, 0],
      ]),
    ).toThrow(OptionError);
  });
});

describe("winProbability", () => {
  it("sums to 1 over both sides", () => {
    expect(winProbability(3, 1)).toBe(0.75);
    expect(winProbability(1e308, 1e-308)).toBe(1);
    expect(() => winProbability(0, 1)).toThrow(OptionError);
  });
});

describe("pairedComparison", () => {
  it("is McNemar's exact test for right and wrong", () => {
    // Five pairs differ, four in favour of a: 2·(C(5,0) + C(5,1))/2^5 = 12/32.
    const a = [1, 1, 1, 1, 0, 1, 0];
    const b = [0, 0, 0, 0, 1, 1, 0];
    expect(pairedComparison(a, b)).toMatchObject({
      n: 7,
      difference: expect.closeTo(3 / 7, 12),
      pValue: expect.closeTo(12 / 32, 12),
      test: "mcnemar",
    });
    expect(pairedComparison(b, a).pValue).toBeCloseTo(12 / 32, 12);
  });

  it("looks at all sign patterns of a few differences", () => {
    // Differences 0.3, 0.2, 0.1: only all plus and all minus reach 0.6.
    expect(pairedComparison([0.3, 0.4, 0.6], [0, 0.2, 0.5])).toMatchObject({ pValue: 2 / 8, test: "sign-flip" });
  });

  it("draws patterns of many differences, near the exact share", () => {
    const a = Array.from({ length: 17 }, (_, i) => 0.51 + ((i * 7) % 17) / 100);
    const b = Array.from({ length: 17 }, (_, i) => 0.5 + ((i * 5) % 17) / 90);
    const drawn = pairedComparison(a, b, { draws: 50_000, seed: 3 });
    expect(drawn.test).toBe("sign-flip, drawn");
    // All 2^17 patterns by hand.
    const differences = a.map((value, i) => value - b[i]!);
    const observed = Math.abs(differences.reduce((x, y) => x + y));
    let beyond = 0;
    for (let pattern = 0; pattern < 2 ** 17; pattern++) {
      const sum = differences.reduce((total, value, i) => total + ((pattern >> i) & 1 ? value : -value), 0);
      if (Math.abs(sum) >= observed - 1e-12) beyond++;
    }
    const exact = beyond / 2 ** 17;
    expect(Math.abs(drawn.pValue - exact)).toBeLessThan(5 * Math.sqrt((exact * (1 - exact)) / 50_000));
    expect(pairedComparison(a, b, { draws: 50_000, seed: 3 })).toEqual(drawn);
  });

  it("takes the queries of a transcript for one", () => {
    const clusters = ["t1", "t1", "t2", "t2"];
    expect(pairedComparison([1, 0, 1, 1], [0, 0, 0, 0], { clusters })).toMatchObject({
      n: 2,
      difference: 0.75,
      pValue: 0.5,
    });
  });

  it("never sees a difference in equal scores, and handles thousands of pairs", () => {
    expect(pairedComparison([0.5], [0.5])).toEqual({
      n: 1,
      difference: 0,
      low: null,
      high: null,
      pValue: 1,
      test: "mcnemar",
    });
    const right = new Array<number>(5000).fill(1);
    expect(
      pairedComparison(
        right,
        right.map((_, i) => (i % 2 === 0 ? 0 : 1)),
      ).pValue,
    ).toBe(0);
    const half = right.map((_, i) => (i % 2 === 0 ? 0 : 1));
    expect(
      pairedComparison(
        half,
        half.map((value) => 1 - value),
      ).pValue,
    ).toBe(1);
  });

  it("refuses sides of different lengths and no pairs", () => {
    expect(() => pairedComparison([1], [])).toThrow(OptionError);
    expect(() => pairedComparison([], [])).toThrow(OptionError);
    expect(() => pairedComparison([1], [Number.NaN])).toThrow(NonFiniteError);
    expect(() => pairedComparison([1], [1], { clusters: [] })).toThrow(OptionError);
    expect(() => pairedComparison([1], [1], { draws: 0 })).toThrow(OptionError);
  });
});
