import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { drawToken, resolveSampling, tokenProbabilities } from "./sampling.js";

const probabilities = (logits: number[], options = {}, prompt: number[] = [], drawn = new Map<number, number>()) =>
  tokenProbabilities(logits, resolveSampling(options), { prompt: new Set(prompt), drawn });

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
    const drawn = new Map([
      [0, 3],
      [1, 1],
    ]);
    expect([...probabilities([1, -1, 0], { repetitionPenalty: 2 }, [0], drawn)]).toEqual([...once]);
  });

  it("subtracts the presence penalty once and the frequency penalty as often as a token was drawn", () => {
    // token 0: 1 − 0.5 − 2·0.25 = 0; token 2: 0 − 0.5 − 0.25 = −0.75
    const drawn = new Map([
      [0, 2],
      [2, 1],
    ]);
    const penalised = probabilities([1, -1, 0], { presencePenalty: 0.5, frequencyPenalty: 0.25 }, [1], drawn);
    expect([...penalised]).toEqual([...probabilities([0, -1, -0.75])]);
    expect([...probabilities([1, -1], { presencePenalty: -1 }, [], new Map([[1, 3]]))]).toEqual([
      ...probabilities([1, 0]),
    ]);
  });

  it("adds biases after the penalties, and bans tokens", () => {
    // token 0: 2 / 2 + 3 = 4
    const biased = probabilities(
      [2, 1, 0],
      { repetitionPenalty: 2, logitBias: { 0: 3, 1: Number.NEGATIVE_INFINITY } },
      [0],
    );
    expect([...biased]).toEqual([...probabilities([4, Number.NEGATIVE_INFINITY, 0])]);
    expect([...probabilities([3, 2], { temperature: 0, logitBias: { 1: 2 } })]).toEqual([0, 1]);
    const all = { logitBias: { 0: Number.NEGATIVE_INFINITY, 1: Number.NEGATIVE_INFINITY } };
    for (const temperature of [0, 1])
      expect(() => probabilities([1, 2], { ...all, temperature })).toThrow(/does logitBias ban every token/);
  });

  it("filters as the definitions say, whatever the scores", () => {
    /** Sorting everything. */
    const plain = (logits: number[], { topK = logits.length, topP = 1, minP = 0 }) => {
      const softmax = (z: number[]) => {
        const highest = Math.max(...z);
        const weights = z.map((x) => Math.exp(x - highest));
        const total = weights.reduce((a, b) => a + b, 0);
        return weights.map((x) => x / total);
      };
      const kth = logits.toSorted((a, b) => b - a)[Math.min(topK, logits.length) - 1]!;
      let p = softmax(logits.map((x) => (x >= kth ? x : Number.NEGATIVE_INFINITY)));
      let before = 0;
      const nucleus = new Set<number>();
      for (const id of [...p.keys()].sort((a, b) => p[b]! - p[a]! || a - b)) {
        if (nucleus.size === 0 || before < topP) nucleus.add(id);
        before += p[id]!;
      }
      p = softmax(logits.map((x, id) => (nucleus.has(id) && p[id]! > 0 ? x : Number.NEGATIVE_INFINITY)));
      const highest = Math.max(...p);
      return softmax(logits.map((x, id) => (p[id]! > 0 && p[id]! >= minP * highest ? x : Number.NEGATIVE_INFINITY)));
    };
    const score = fc.oneof(fc.integer({ min: -4, max: 4 }), fc.double({ min: -60, max: 60, noNaN: true }));
    const filters = fc.record(
      {
        topK: fc.integer({ min: 1, max: 30 }),
        topP: fc.double({ min: 0.01, max: 0.999, noNaN: true }),
        minP: fc.double({ min: 0, max: 0.5, noNaN: true }),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fc.array(score, { minLength: 1, maxLength: 40 }), filters, (logits, options) => {
        const [found, expected] = [probabilities(logits, options), plain(logits, options)];
        for (const [id, p] of expected.entries()) expect(Math.abs(found[id]! - p)).toBeLessThan(1e-12);
      }),
    );
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
    [{ presencePenalty: Number.NaN }],
    [{ frequencyPenalty: Number.POSITIVE_INFINITY }],
    [{ logitBias: { 3: Number.NaN } }],
    [{ logitBias: { 3: Number.POSITIVE_INFINITY } }],
    [{ logitBias: { x: 1 } as unknown as Record<number, number> }],
    [{ logitBias: { [-1]: 1 } }],
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
