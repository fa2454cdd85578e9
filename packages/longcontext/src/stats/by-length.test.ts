import { NonFiniteError, OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { cumulativeCurve, decimateCurve, type ScoredLength } from "./cumulative.js";
import { heatMap } from "./heat-map.js";
import { meanInterval, normalInterval } from "./intervals.js";
import { lengthBins, powerOfTwoAbove } from "./length-bins.js";
import { areaUnderCurve, crossOver, degradation, effectiveLength, rulerAverages } from "./length-summary.js";
import { stackWeight } from "./stack-weight.js";

const score = fc.double({ min: 0, max: 1, noNaN: true });
const tokens = fc.integer({ min: 1, max: 1 << 24 });
const samples = fc.array(fc.record({ tokens, score }), { minLength: 1, maxLength: 60 });

describe("cumulativeCurve", () => {
  it("has at each length the mean and interval of all samples up to it", () => {
    fc.assert(
      fc.property(samples, (all) => {
        for (const point of cumulativeCurve(all)) {
          const scores = all.filter((sample) => sample.tokens <= point.tokens).map((sample) => sample.score);
          const binary = scores.every((value) => value === 0 || value === 1);
          const want = binary ? meanInterval(scores) : normalInterval(scores);
          expect(point.n).toBe(want.n);
          expect(point.mean).toBeCloseTo(want.mean!, 10);
          if (want.low === null || want.high === null) expect([point.low, point.high]).toEqual([null, null]);
          else expect([point.low, point.high]).toEqual([expect.closeTo(want.low, 6), expect.closeTo(want.high, 6)]);
        }
      }),
    );
  });

  it("is the same for a sample of weight 2 as for two of one cluster", () => {
    const weighted: ScoredLength[] = [
      { tokens: 1, score: 0.25, weight: 2 },
      { tokens: 2, score: 0.75 },
    ];
    const twice: ScoredLength[] = [
      { tokens: 1, score: 0.25, cluster: "t" },
      { tokens: 1, score: 0.25, cluster: "t" },
      { tokens: 2, score: 0.75 },
    ];
    const { n: _, ...one } = cumulativeCurve(weighted).at(-1)!;
    expect(cumulativeCurve(twice).at(-1)).toMatchObject(one);
    // mean = (2·0.25 + 0.75)/3 = 5/12; cluster sums of w·(s − mean): −1/3 and 1/3; variance = 2/1 · 2/9 / 9.
    expect(one.mean).toBeCloseTo(5 / 12, 12);
    expect(cumulativeCurve(twice)[0]).toMatchObject({ low: null, high: null });
  });

  it("takes Wilson's interval for independent right and wrong answers of equal weight alone", () => {
    const binary: ScoredLength[] = [1, 0, 1, 1].map((value) => ({ tokens: 1, score: value }));
    const { low, high } = meanInterval([1, 0, 1, 1]);
    expect(cumulativeCurve(binary)[0]).toMatchObject({ low, high });
    expect(cumulativeCurve(binary.map((sample) => ({ ...sample, weight: 1 / 3 })))[0]).toMatchObject({ low, high });
    const clustered = binary.map((sample, i) => ({ ...sample, cluster: i < 2 ? "t" : `${i}` }));
    expect(cumulativeCurve(clustered)[0]!.low).not.toBeCloseTo(low!, 3);
    // Weights 1 to 4: mean 0.8, Σ (w·(s − mean))² = 0.04 + 2.56 + 0.36 + 0.64, so the variance is 4/3 · 3.6 / 10².
    const weighted = cumulativeCurve(binary.map((sample, i) => ({ ...sample, weight: 1 + i })))[0]!;
    expect(weighted.low).toBeCloseTo(0.8 - 1.959963984540054 * Math.sqrt(0.048), 12);
  });

  it("widens where the samples of a cluster agree", () => {
    const scores = Array.from({ length: 40 }, (_, i) => (Math.floor(i / 4) % 2 === 0 ? 0.9 : 0.1));
    const apart = cumulativeCurve(scores.map((value) => ({ tokens: 1, score: value })))[0]!;
    const clustered = cumulativeCurve(
      scores.map((value, i) => ({ tokens: 1, score: value, cluster: `${Math.floor(i / 4)}` })),
    )[0]!;
    expect(clustered.high! - clustered.low!).toBeGreaterThan(1.9 * (apart.high! - apart.low!));
  });

  it("refuses lengths and weights that aren't positive, and scores that aren't numbers", () => {
    expect(() => cumulativeCurve([{ tokens: 0, score: 1 }])).toThrow(OptionError);
    expect(() => cumulativeCurve([{ tokens: 1, score: 1, weight: 0 }])).toThrow(OptionError);
    expect(() => cumulativeCurve([{ tokens: 1, score: Number.NaN }])).toThrow(NonFiniteError);
    expect(cumulativeCurve([])).toEqual([]);
  });
});

describe("decimateCurve", () => {
  it("refuses to keep less than two points", () => {
    expect(() => decimateCurve([{ tokens: 1 }], 1)).toThrow(OptionError);
  });

  it("keeps order, both ends and at most so many points", () => {
    const lengths = fc.uniqueArray(tokens, { minLength: 3, maxLength: 300 });
    fc.assert(
      fc.property(lengths, fc.integer({ min: 2, max: 50 }), (xs, most) => {
        const curve = xs.sort((a, b) => a - b).map((x) => ({ tokens: x }));
        const kept = decimateCurve(curve, most);
        expect(kept.length).toBeLessThanOrEqual(most);
        expect(kept[0]).toBe(curve[0]);
        expect(kept.at(-1)).toBe(curve.at(-1));
        expect(curve.filter((point) => kept.includes(point))).toEqual(kept);
      }),
    );
  });
});

describe("lengthBins", () => {
  it("puts powers of two into the bin that they end", () => {
    expect(powerOfTwoAbove(1)).toBe(1);
    for (let k = 1; k < 53; k++) {
      expect(powerOfTwoAbove(2 ** k)).toBe(2 ** k);
      if (k > 1) expect(powerOfTwoAbove(2 ** k - 1)).toBe(2 ** k);
      expect(powerOfTwoAbove(2 ** k + 1)).toBe(2 ** (k + 1));
    }
  });

  it("counts a transcript once, with the mean of its queries", () => {
    const bins = lengthBins([
      { tokens: 4097, score: 1, cluster: "t1" },
      { tokens: 8192, score: 0, cluster: "t1" },
      { tokens: 8192, score: 1, cluster: "t2" },
      { tokens: 4096, score: 1 },
    ]);
    expect(bins).toEqual([
      { tokens: [2048, 4096], samples: 1, ...meanInterval([1]) },
      { tokens: [4096, 8192], samples: 3, ...meanInterval([0.5, 1]) },
    ]);
  });
});

describe("stackWeight", () => {
  it("gives each length the weight it has in one set alone", () => {
    const limits = [32_768, 131_072, 1_048_576];
    expect([1, 32_768, 32_769, 131_072, 131_073].map((length) => stackWeight(limits, length))).toEqual([
      1 / 3,
      1 / 3,
      1 / 2,
      1 / 2,
      1,
    ]);
    expect(() => stackWeight(limits, 1_048_577)).toThrow(OptionError);
  });
});

describe("heatMap", () => {
  it("puts what lies midway into the lower cell, and errors into none", () => {
    const map = heatMap(
      [
        { length: 150, depth: 50, score: 1 },
        { length: 151, depth: 51, score: null },
      ],
      { lengths: [100, 200], depths: [0, 100] },
    );
    expect(map.mean).toEqual([
      [1, null],
      [null, null],
    ]);
    expect(map.errors).toEqual([
      [0, 0],
      [0, 1],
    ]);
  });

  it("keeps every record, and the mean of all", () => {
    const records = fc.array(
      fc.record({ length: tokens, depth: fc.integer({ min: 0, max: 100 }), score: fc.option(score) }),
      {
        minLength: 1,
      },
    );
    fc.assert(
      fc.property(records, (all) => {
        const { mean, n, errors } = heatMap(all, { lengths: [1000, 10_000, 100_000], depths: [0, 50, 100] });
        const scored = all.flatMap((record) => record.score ?? []);
        const total = mean.flat().reduce<number>((sum, value, i) => sum + (value ?? 0) * n.flat()[i]!, 0);
        expect(total).toBeCloseTo(
          scored.reduce((a, b) => a + b, 0),
          9,
        );
        expect(n.flat().reduce((a, b) => a + b)).toBe(scored.length);
        expect(errors.flat().reduce((a, b) => a + b)).toBe(all.length - scored.length);
      }),
    );
  });

  it("refuses axes that don't ascend", () => {
    expect(() => heatMap([], { lengths: [2, 1] })).toThrow(OptionError);
    expect(() => heatMap([], { depths: [] })).toThrow(OptionError);
    expect(() => heatMap([{ length: 1, depth: Number.NaN, score: 1 }])).toThrow(NonFiniteError);
    expect(heatMap([])).toEqual({ lengths: [], depths: [], mean: [], n: [], errors: [] });
  });
});

describe("summaries by length", () => {
  const curve = (...scores: number[]) => scores.map((value, i) => ({ length: 8192 * 2 ** i, score: value }));

  it("average a constant to itself", () => {
    fc.assert(
      fc.property(score, fc.integer({ min: 2, max: 9 }), (value, m) => {
        const points = curve(...new Array<number>(m).fill(value));
        const { mean, increasing, decreasing } = rulerAverages(points.map((point) => point.score));
        for (const average of [mean, increasing, decreasing, areaUnderCurve(points)])
          expect(average).toBeCloseTo(value, 12);
      }),
    );
  });

  it("weigh the end or the beginning", () => {
    // (1·90 + 2·60)/3 and (2·90 + 1·60)/3
    expect(rulerAverages([90, 60])).toEqual({ mean: 75, increasing: 70, decreasing: 80 });
    expect(() => rulerAverages([])).toThrow(OptionError);
  });

  it("end the effective length at the first fall below the threshold", () => {
    expect(effectiveLength(curve(90, 80, 90), 85)).toBe(8192);
    expect(effectiveLength(curve(90, 80, 90), 85, { rule: "any" })).toBe(32_768);
    expect(effectiveLength(curve(80, 90), 85)).toBeNull();
    expect(effectiveLength([], 85)).toBeNull();
    expect(() => effectiveLength(curve(1), Number.NaN)).toThrow(NonFiniteError);
    expect(() => effectiveLength([...curve(1), ...curve(1)], 85)).toThrow(OptionError);
  });

  it("tell the fall to 32K and the slope after it", () => {
    expect(degradation(curve(0.9, 0.85, 0.8, 0.7, 0.6))).toEqual({
      shortest: 0.9,
      dropTo32K: expect.closeTo(0.1, 12),
      slopePerDoubling: expect.closeTo(-0.1, 12),
    });
    // Half-way in log2 between 16K and 64K.
    expect(
      degradation([
        { length: 16_384, score: 1 },
        { length: 65_536, score: 0.5 },
      ]).dropTo32K,
    ).toBeCloseTo(0.25, 12);
    expect(degradation(curve(0.9, 0.8))).toEqual({ shortest: 0.9, dropTo32K: null, slopePerDoubling: null });
    expect(() => degradation([])).toThrow(OptionError);
  });

  it("find where another model takes the lead", () => {
    // Differences 0.2 and −0.2: the middle of 8K and 16K in log2.
    expect(crossOver(curve(0.9, 0.5), curve(0.7, 0.7))).toBeCloseTo(8192 * Math.SQRT2, 6);
    expect(crossOver(curve(0.9, 0.7, 0.5), curve(0.7, 0.7, 0.7))).toBeCloseTo(16_384, 6);
    expect(crossOver(curve(0.9, 0.8), curve(0.7, 0.7))).toBeNull();
    expect(crossOver(curve(0.9), [])).toBeNull();
  });

  it("need two lengths for an area", () => {
    expect(() => areaUnderCurve(curve(1))).toThrow(OptionError);
  });
});
