import { describe, expect, it } from "vitest";
import { drawToken, resolveSampling, tokenProbabilities } from "./sampling.js";

const probabilities = (logits: number[], options = {}, seen: number[] = []) =>
  tokenProbabilities(logits, resolveSampling(options), seen);

describe("tokenProbabilities", () => {
  it("takes the lowest id of the most likely tokens at temperature 0", () => {
    expect([...probabilities([1, 3, 3, 2], { temperature: 0 })]).toEqual([0, 1, 0, 0]);
  });

  it("keeps ties at the k-th place", () => {
    // ranks: 3, 2, 2, 1; top 2 keeps both 2s
    expect(probabilities([2, 3, 2, 1], { topK: 2 }).map(Math.sign)).toEqual(Float64Array.of(1, 1, 1, 0));
  });

  it("keeps at least one token under top-p", () => {
    expect([...probabilities([0, 5, 1], { topP: 1e-9 })]).toEqual([0, 1, 0]);
  });

  it("penalises each seen token once", () => {
    const once = probabilities([1, -1, 0], { repetitionPenalty: 2 }, [0, 1]);
    expect([...once]).toEqual([...probabilities([0.5, -2, 0])]);
    expect([...probabilities([1, -1, 0], { repetitionPenalty: 2 }, [0, 1, 0, 0])]).toEqual([...once]);
  });

  it("takes the most likely tokens at a temperature close to 0", () => {
    for (const temperature of [5e-324, 1e-320, 1e-300]) {
      expect([...probabilities([1000, -3, 999, 1000], { temperature })]).toEqual([0.5, 0, 0, 0.5]);
      expect([...probabilities([-1e300, 1e300, 0], { temperature, topP: 0.9, minP: 0.1 })]).toEqual([0, 1, 0]);
    }
  });

  it("refuses scores of which none is finite, or the largest isn't", () => {
    expect(() => probabilities([0, Number.POSITIVE_INFINITY])).toThrow(/largest logit is Infinity/);
    expect(() => probabilities([Number.NEGATIVE_INFINITY])).toThrow(/largest logit is -Infinity/);
  });

  it("survives logits of minus infinity and refuses NaN", () => {
    expect([...probabilities([Number.NEGATIVE_INFINITY, 0])]).toEqual([0, 1]);
    expect(() => probabilities([0, Number.NaN])).toThrow(/logits hold NaN/);
  });

  it.each([
    [{ temperature: -1 }],
    [{ topK: 0 }],
    [{ topK: 1.5 }],
    [{ topP: 0 }],
    [{ minP: 2 }],
    [{ repetitionPenalty: 0 }],
  ])("refuses %o", (options) => {
    expect(() => resolveSampling(options)).toThrow(/\[sampling\] .* must be .*; received/);
  });
});

describe("drawToken", () => {
  it("takes the first token whose cumulative probability exceeds u", () => {
    const p = Float64Array.of(0.25, 0, 0.5, 0.25);
    expect([0, 0.2499, 0.25, 0.7499, 0.75, 0.9999].map((u) => drawToken(p, u))).toEqual([0, 0, 2, 2, 3, 3]);
  });

  it("takes the last possible token when rounding leaves a gap", () => {
    expect(drawToken(Float64Array.of(0.3, 0.3, 0), 0.99)).toBe(1);
  });
});
