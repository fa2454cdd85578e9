import { describe, expect, it } from "vitest";
import { chooseRate } from "./choose-rate.js";
import type { SweepRun } from "./sweep-file.js";

const run = (learningRate: number, value: number | null, tokensToTarget: number | null = null, seed = 1): SweepRun => ({
  learningRate,
  seed,
  value,
  standardError: 0.01,
  tokensToTarget,
});

describe("chooseRate", () => {
  it("takes the lowest loss, the highest accuracy, and the first of equals", () => {
    expect(chooseRate([run(1, 2.0), run(2, 1.8), run(3, 1.9)], "validationLoss")).toBe(2);
    expect(chooseRate([run(1, 0.6), run(2, 0.5), run(3, 0.7)], "accuracy")).toBe(3);
    expect(chooseRate([run(1, 2), run(2, 2)], "validationLoss")).toBe(1);
  });

  it("averages over seeds", () => {
    // Means: (1.0 + 2.0) / 2 = 1.5 and (1.4 + 1.4) / 2 = 1.4.
    const runs = [run(1, 1.0, null, 1), run(1, 2.0, null, 2), run(2, 1.4, null, 1), run(2, 1.4, null, 2)];
    expect(chooseRate(runs, "validationLoss")).toBe(2);
  });

  it("prefers the fewest tokens to the target over a better metric, if every seed got there", () => {
    expect(chooseRate([run(1, 0.99, 300), run(2, 0.95, 200), run(3, 0.94)], "accuracy")).toBe(2);
    expect(
      chooseRate([run(1, 0.95, 100, 1), run(1, 0.5, null, 2), run(2, 0.95, 300, 1), run(2, 0.95, 300, 2)], "accuracy"),
    ).toBe(2);
  });

  it("never takes a rate that diverged, and none if all did", () => {
    expect(chooseRate([run(1, null), run(2, 5)], "validationLoss")).toBe(2);
    expect(chooseRate([run(1, 1, null, 1), run(1, null, null, 2), run(2, 5)], "validationLoss")).toBe(2);
    expect(chooseRate([run(1, null)], "accuracy")).toBeUndefined();
  });
});
