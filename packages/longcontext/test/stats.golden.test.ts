/** The statistics of longcontext.json. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { describeGolden } from "../../../test/golden.js";
import {
  areaUnderCurve,
  bradleyTerry,
  cumulativeCurve,
  cumulativeNll,
  effectiveLength,
  fitPowerLaw,
  type HeatMap,
  heatMap,
  nllCurve,
  normalInterval,
  rulerAverages,
  spearman,
  stackWeight,
  wilsonInterval,
} from "../src/index.js";

type Pair = [number, number];

interface Stats {
  cumulative: {
    points: [tokens: number, score: number, weight: number][];
    curve: [x: number, mean: number, n: number][];
  }[];
  stackWeights: { subsets: number[]; samples: [subset: number, promptTokens: number][]; weights: number[] };
  wavg: { scores: number[]; avg: number; inc: number; dec: number }[];
  effective: { lengths: number[]; scores: number[]; threshold: number; prefix: number | null; any: number | null }[];
  auc: { points: Pair[]; auc: number }[];
  heatmap: { lengths: number[]; depths: number[]; records: [number, number, number | null][] } & Pick<
    HeatMap,
    "mean" | "n" | "errors"
  >;
  wilson: { k: number; n: number; ci: Pair }[];
  normalCi: { xs: number[]; ci: [number, number | null, number | null] }[];
  spearman: { x: number[]; y: number[]; rho: number }[];
  bradleyTerry: { wins: number[][]; strength: (number | null)[] }[];
  nll: { docs: number[][]; positions: number[]; points: [number, number, number][]; cumulativeDoc0: number[] };
  powerLaw: {
    x: number[];
    y: number[];
    fit: Record<"alpha" | "beta" | "gamma" | "sse" | "r2", number>;
    true: Record<"alpha" | "beta" | "gamma", number> | null;
  }[];
}

const TOLERANCE = 1e-9;

/** Compares all numbers of two values of one shape; everything else must be equal. */
function expectNear(got: unknown, want: unknown): void {
  if (Array.isArray(want)) {
    expect(got).toHaveLength(want.length);
    for (const [i, item] of want.entries()) expectNear((got as unknown[])[i], item);
  } else if (typeof want === "number" && typeof got === "number") {
    expect(Math.abs(got - want), `${got}, should be ${want}`).toBeLessThanOrEqual(TOLERANCE);
  } else {
    expect(got).toBe(want);
  }
}

function expectRelative(got: number, want: number, tolerance: number): void {
  expect(Math.abs(got - want), `${got}, should be ${want}`).toBeLessThanOrEqual(tolerance * Math.abs(want));
}

describeGolden("longcontext.json", (path) => {
  const { stats } = JSON.parse(readFileSync(path, "utf8")) as { stats: Stats };

  describe("stats", () => {
    it.each(stats.cumulative)("cumulative", ({ points, curve }) => {
      const got = cumulativeCurve(points.map(([tokens, score, weight]) => ({ tokens, score, weight })));
      expectNear(
        got.map(({ tokens, mean, n }) => [tokens, mean, n]),
        curve,
      );
    });

    it("stackWeights", () => {
      const { subsets, samples, weights } = stats.stackWeights;
      expectNear(
        samples.map(([, promptTokens]) => stackWeight(subsets, promptTokens)),
        weights,
      );
    });

    it.each(stats.wavg)("wavg of $scores", ({ scores, avg, inc, dec }) => {
      const { mean, increasing, decreasing } = rulerAverages(scores);
      expectNear([mean, increasing, decreasing], [avg, inc, dec]);
    });

    it.each(stats.effective)("effective length of $scores", ({ lengths, scores, threshold, prefix, any }) => {
      const points = lengths.map((length, i) => ({ length, score: scores[i]! }));
      expect(effectiveLength(points, threshold)).toBe(prefix);
      expect(effectiveLength(points, threshold, { rule: "any" })).toBe(any);
    });

    it.each(stats.auc)("auc of $points", ({ points, auc }) => {
      expectNear(areaUnderCurve(points.map(([length, score]) => ({ length, score }))), auc);
    });

    it("heatmap", () => {
      const { lengths, depths, records, mean, n, errors } = stats.heatmap;
      const got = heatMap(
        records.map(([length, depth, score]) => ({ length, depth, score })),
        { lengths, depths },
      );
      expectNear([got.mean, got.n, got.errors], [mean, n, errors]);
    });

    it.each(stats.wilson)("wilson of $k in $n", ({ k, n, ci }) => {
      expectNear(wilsonInterval(k, n), ci);
    });

    it.each(stats.normalCi)("normalCi of $xs", ({ xs, ci }) => {
      const { mean, low, high } = normalInterval(xs);
      expectNear([mean, low, high], ci);
    });

    it.each(stats.spearman)("spearman of $x and $y", ({ x, y, rho }) => {
      expectNear(spearman(x, y), rho);
    });

    it.each(stats.bradleyTerry)("bradleyTerry of $wins", ({ wins, strength }) => {
      expectNear(bradleyTerry(wins), strength);
    });

    it("nll", () => {
      const { docs, positions, points, cumulativeDoc0 } = stats.nll;
      expectNear(Array.from(cumulativeNll(docs[0]!)), cumulativeDoc0);
      expectNear(
        nllCurve(docs, { positions }).map(({ position, mean, documents }) => [position, mean, documents]),
        points,
      );
    });

    it.each(stats.powerLaw)("powerLaw, $fit", ({ x, y, fit, true: law }) => {
      const got = fitPowerLaw(x, y);
      const exact = law !== null;
      if (exact) expect(got.sse).toBeLessThanOrEqual(1e-20);
      else expectRelative(got.sse, fit.sse, 1e-6);
      for (const name of ["alpha", "beta", "gamma"] as const) {
        expectRelative(got[name], (law ?? fit)[name], exact ? 1e-6 : 1e-3);
      }
      expectNear(got.r2, fit.r2);
      expect(got.degenerate).toBe(false);
    });
  });
});
