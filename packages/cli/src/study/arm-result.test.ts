import { describe, expect, it } from "vitest";
import { armResult, averagedOn, bandOf, difference, median } from "./arm-result.js";
import type { Curve, SeedRun } from "./outcome.js";

const curve = (tokens: number[], values: number[]): Curve => ({ tokens, values, standardErrors: [] });

function run(seed: number, value: number, tokensToTarget: number | null): SeedRun {
  const outcome = {
    parameters: 7,
    activeParameters: 5,
    steps: 10,
    tokens: 100 * seed,
    flopsPerToken: 42,
    value,
    standardError: 0.5,
    metrics: {},
    seconds: seed,
    learningRate: 0.1,
    sample: seed === 1 ? "text" : null,
  };
  return { seed, outcome, tokensToTarget, evaluations: curve([], []), trainingLoss: curve([], []) };
}

const of = (...runs: SeedRun[]) => armResult({ name: "arm", description: undefined }, {} as never, runs);

describe("armResult", () => {
  it("takes mean and standard error over the seeds, the median of tokens, and sums of tokens and time", () => {
    // Mean 3; deviations −2, 0, 2: variance 8/2 = 4; standard error √(4/3).
    const result = of(run(1, 1, 300), run(2, 3, 900), run(3, 5, 400));
    expect(result).toMatchObject({
      parameters: 7,
      activeParameters: 5,
      flopsPerToken: 42,
      tokens: 600,
      seconds: 6,
      value: 3,
      sample: "text",
    });
    expect(result.standardError).toBeCloseTo(Math.sqrt(4 / 3), 12);
    expect(result).toMatchObject({ tokensToTarget: 400, reached: 3 });
  });

  it("counts a run that never reached the target as infinite", () => {
    expect(of(run(1, 1, 300), run(2, 1, null), run(3, 1, 500))).toMatchObject({ tokensToTarget: 500, reached: 2 });
    expect(of(run(1, 1, 300), run(2, 1, null), run(3, 1, null))).toMatchObject({ tokensToTarget: null, reached: 1 });
    expect(of(run(1, 1, 300), run(2, 1, null))).toMatchObject({ tokensToTarget: null, reached: 1 });
    expect(of(run(1, 1, null), run(2, 1, null))).toMatchObject({ tokensToTarget: null, reached: 0 });
  });

  it("has the evaluation's standard error with one seed", () => {
    expect(of(run(1, 2, 300))).toMatchObject({ value: 2, standardError: 0.5, tokensToTarget: 300, reached: 1 });
  });
});

describe("difference", () => {
  it("is the mean over the seeds with its interval, which what seeds have in common doesn't widen", () => {
    // Differences 1, 2, 3: mean 2, standard error 1/√3, t = 4.3027.
    const [one, other] = [
      of(run(1, 11, 1), run(2, 52, 1), run(3, 93, 1)),
      of(run(1, 10, 1), run(2, 50, 1), run(3, 90, 1)),
    ];
    const { mean, low, high } = difference(one, other);
    expect(mean).toBe(2);
    expect(high - mean).toBeCloseTo(4.3027 / Math.sqrt(3), 12);
    expect(mean - low).toBeCloseTo(4.3027 / Math.sqrt(3), 12);
  });

  it("has no interval with one seed", () => {
    expect(difference(of(run(1, 3, 1)), of(run(1, 1, 1)))).toEqual({ mean: 2, low: Number.NaN, high: Number.NaN });
  });
});

describe("median", () => {
  it("is the middle value, or the middle of two", () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([1, Number.NaN, 2])).toBeNaN();
  });
});

describe("bandOf", () => {
  it("is median, least and greatest on a common grid; a run that ended counts on with its last value", () => {
    const band = bandOf([curve([10, 20, 30], [1, 2, 3]), curve([10, 20], [5, 9]), curve([10, 20, 30], [3, 4, 5])]);
    expect(band).toEqual({ x: [10, 20, 30], y: [3, 4, 5], low: [1, 2, 3], high: [5, 9, 9] });
  });
});

describe("averagedOn", () => {
  it("averages what lies between the points of the grid", () => {
    expect(averagedOn([20, 40], curve([10, 20, 30, 40], [1, 3, 5, 9]))).toMatchObject({
      tokens: [20, 40],
      values: [2, 7],
    });
  });
});
