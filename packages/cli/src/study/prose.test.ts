import { describe, expect, it } from "vitest";
import type { ArmResult } from "./arm-result.js";
import type { Part } from "./load-study.js";
import { conditions, findings } from "./prose.js";

const part = (metric: "accuracy" | "validationLoss", target: number, seeds = [1]) =>
  ({
    metric,
    target,
    seeds,
    arms: [{ config: { data: { kind: "text", tokenizer: "character" } } }],
  }) as unknown as Part;

const arm = (name: string, value: number, tokens: number, tokensToTarget: number | null, flopsPerToken = 1) =>
  ({
    name,
    value,
    standardError: 0.01,
    flopsPerToken,
    tokensToTarget,
    reached: tokensToTarget === null ? 0 : 1,
    runs: [{ outcome: { tokens }, tokensToTarget }],
  }) as unknown as ArmResult;

/** An arm of three seeds, with the median of their tokens to the target. */
const armOf3 = (name: string, value: number, needed: (number | null)[], median: number | null, spread = [0, 0, 0]) =>
  ({
    name,
    value,
    standardError: 0.01,
    flopsPerToken: 1,
    tokensToTarget: median,
    reached: needed.filter((tokens) => tokens !== null).length,
    runs: needed.map((tokensToTarget, i) => ({
      outcome: { tokens: tokensToTarget ?? 4e6, value: value + spread[i]! },
      tokensToTarget,
    })),
  }) as unknown as ArmResult;

describe("findings", () => {
  it("orders the arms by tokens to the target and names those that didn't get there", () => {
    const text = findings(part("accuracy", 0.95), [
      arm("slow", 0.95, 3e6, 3e6),
      arm("fast", 0.96, 1e6, 1e6),
      arm("never", 0.7, 4e6, null),
    ]);
    expect(text).toBe(
      "fast reached 95 % accuracy first, after 1.00M tokens, then slow after 3.00M (3.0 times as many). " +
        "never did not get there in 4.00M tokens and ended at 70.0 %.",
    );
  });

  it("says so if the fewest tokens weren't the fewest operations", () => {
    const arms = (flopsPerToken: number) => [
      arm("dense", 0.95, 1e6, 1e6, flopsPerToken),
      arm("lean", 0.95, 2e6, 2e6, 1000),
    ];
    expect(findings(part("accuracy", 0.95), arms(3000))).toContain(
      "Counted in operations instead of tokens, lean got there cheapest: 2.00B FLOPs against 3.00B of dense.",
    );
    expect(findings(part("accuracy", 0.95), arms(1500))).not.toContain("operations");
  });

  it("calls a small difference a tendency and a large one more than two standard errors", () => {
    // The standard error of the difference is √2 · 0.01 = 0.014; two of them are 0.028.
    const of = (second: number) =>
      findings(part("validationLoss", 1), [arm("a", 1.5, 100, null), arm("b", second, 100, null)]);
    expect(of(1.52)).toMatch(
      /^No arm reached 1 nats\/char\. After the same 100 tokens, a ended best at 1\.500 nats\/char/,
    );
    expect(of(1.52)).toContain("by 0.020 nats/char: within two standard errors");
    expect(of(1.53)).toContain("by 0.030 nats/char: more than two standard errors");
    expect(of(1.4)).toContain("b ended best at 1.400");
  });

  it("says over how many seeds, and whether every seed of the first was ahead", () => {
    const of = (...slow: number[]) =>
      findings(part("accuracy", 0.95, [1, 2, 3]), [
        armOf3("slow", 0.96, slow, slow[1]!),
        armOf3("fast", 0.96, [1e6, 9e5, 2e6], 1e6),
        armOf3("some", 0.9, [3e6, null, 2.5e6], 3e6),
        armOf3("never", 0.7, [null, null, null], null),
        armOf3("once", 0.8, [null, null, 5e6], null),
      ]);
    expect(of(2.1e6, 2.5e6, 2.6e6)).toBe(
      "In the median over 3 seeds, fast reached 95 % accuracy first, after 1.00M tokens, then slow after 2.50M (2.5 times as many) " +
        "and some after 3.00M (3.0 times as many; 2 of 3 seeds). " +
        "The slowest seed of fast needed fewer tokens than any seed of the other arms. " +
        "never got there with none of its 3 seeds in 4.00M tokens and ended at 70.0 % (mean). " +
        "once got there with 1 of its 3 seeds in 5.00M tokens and ended at 80.0 % (mean).",
    );
    expect(of(1.9e6, 2.5e6, 2.6e6)).toContain(
      "The seeds of fast and slow overlap, so this difference is no more than a tendency.",
    );
  });

  it("says that no arm got there in the median, and which did with a seed", () => {
    const text = findings(part("accuracy", 0.95, [1, 2, 3]), [
      armOf3("a", 0.8, [null, null, 3e6], null),
      armOf3("b", 0.7, [null, null, null], null),
    ]);
    expect(text).toMatch(
      /^In the median over 3 seeds, no arm reached 95 % accuracy\. a got there with 1 of its 3 seeds/,
    );
  });

  it("tells the interval of a lead over the same seeds, and calls a lead whose interval holds zero a tendency", () => {
    const none = [null, null, null];
    const of = (metric: "accuracy" | "validationLoss", ...values: [number, number]) =>
      findings(part(metric, metric === "accuracy" ? 1 : 0, [1, 2, 3]), [
        armOf3("a", values[0], none, null, [-0.02, 0, 0.02]),
        armOf3("b", values[1], none, null, [-0.01, 0, 0.01]),
      ]);
    // Differences by seed ∓0.01 around their mean: standard error 0.01/√3, half width 4.3027 · 0.00577 = 0.0248.
    expect(of("validationLoss", 1.5, 1.6)).toContain(
      "ahead of b (1.600 nats/char) by 0.100 nats/char (95 % interval over the same seeds: 0.075 to 0.125 nats/char).",
    );
    expect(of("accuracy", 0.5, 0.6)).toContain(
      "ahead of a (50.0 %) by 10.0 % (95 % interval over the same seeds: 7.5 to 12.5 %).",
    );
    expect(of("validationLoss", 1.5, 1.52)).toContain(
      "by 0.020 nats/char, but the 95 % interval over the same seeds holds zero, so this is no more than a tendency.",
    );
  });

  it("calls final values means over the seeds", () => {
    const text = findings(part("validationLoss", 1, [1, 2, 3]), [
      armOf3("a", 1.5, [null, null, null], null),
      armOf3("b", 1.6, [null, null, null], null),
    ]);
    expect(text).toContain(
      "After the same 4.00M tokens, a ended best at 1.500 nats/char (mean over 3 seeds), ahead of b",
    );
  });
});

describe("conditions", () => {
  const withData = (data: object) =>
    ({ ...arm("arm", 1, 1, null), parameters: 10, activeParameters: 10, config: { data } }) as ArmResult;
  const text = { ...part("validationLoss", 1), arms: [{ learningRates: [1, 2] }] } as unknown as Part;

  it("says whether all arms read the same batches, or the same documents under other objectives", () => {
    expect(conditions(text, [withData({ kind: "documents" }), withData({ kind: "documents" })])).toContain(
      "All read the same batches in the same order, and each uses the best of 2 learning rates",
    );
    expect(conditions(text, [withData({ objectives: "causal" }), withData({ objectives: "ul2" })])).toContain(
      "All read the same documents, each under objectives of its own, and each uses the best of 2 learning rates",
    );
  });

  const sized = (parameters: number, activeParameters: number) =>
    ({ ...arm("a", 1, 100, null), parameters, activeParameters, config: { data: {} } }) as unknown as ArmResult;
  const arms = [{ learningRates: [1, 2] }] as unknown as Part["arms"];
  const equal: Part = { ...part("validationLoss", 1), equalParameters: true, arms };

  it("compares of mixtures what a token meets", () => {
    expect(conditions(equal, [sized(100, 100), sized(101, 101)])).toMatch(
      /^The arms have the same number of parameters within 1\.0 %\. .*the best of 2 learning rates/,
    );
    expect(conditions(equal, [sized(100, 100), sized(400, 101)])).toMatch(
      /^A token meets the same number of parameters in every arm within 1\.0 %\./,
    );
    expect(conditions({ ...equal, equalParameters: false }, [sized(100, 100), sized(400, 101)])).toMatch(
      /^The arms have 100 to 400 parameters\./,
    );
  });
});
