import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { drawToken, resolveSampling, sampleToken, tokenProbabilities } from "./sampling.js";

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

  describe("filters as the definitions say", () => {
    /** A number as a whole multiple of the smallest one that there is: sums and products of these have no rounding. */
    const exact = (x: number): bigint => {
      let [odd, exponent] = [x, 0];
      for (; !Number.isInteger(odd); exponent++) odd *= 2;
      return BigInt(odd) << BigInt(1074 - exponent);
    };
    const softmax = (scores: readonly number[], kept: readonly boolean[]) => {
      const weights = scores.map((x, id) => (kept[id] ? Math.exp(x) : 0));
      const total = weights.reduce((a, b) => a + b, 0);
      return weights.map((x) => x / total);
    };

    /** Tokens that are kept for certain and those that may be, where a sum of so many numbers is rounded: all sorted, all added exactly. */
    const plain = (logits: readonly number[], { topK = logits.length, topP = 1, minP = 0 }) => {
      const highest = Math.max(...logits);
      const scores = logits.map((x) => x - highest);
      const kth = logits.toSorted((a, b) => b - a)[Math.min(topK, logits.length) - 1]!;
      const weights = scores.map((x, id) => (logits[id]! >= kth ? Math.exp(x) : 0));
      const total = weights.map(exact).reduce((a, b) => a + b, 0n);
      const rounding = (total * BigInt(2 * logits.length)) >> 52n;
      const limit = (exact(topP) * total) >> 1074n;
      const certain = weights.map(() => false);
      const possible = weights.map(() => false);
      let before = 0n;
      for (const id of [...weights.keys()].sort((a, b) => weights[b]! - weights[a]! || a - b)) {
        const weight = weights[id]!;
        const heavy = weight > 0 && weight >= minP;
        certain[id] = heavy && (before === 0n || topP === 1 || before + rounding < limit);
        possible[id] = heavy && (topP === 1 || before === 0n || before - rounding < limit);
        before += exact(weight);
      }
      return { scores, certain, possible };
    };

    const check = (logits: number[], options: { topK?: number; topP?: number; minP?: number }) => {
      const found = probabilities(logits, options);
      const { scores, certain, possible } = plain(logits, options);
      const kept = [...found].map((p) => p > 0);
      for (const [id, is] of kept.entries()) {
        if (certain[id] !== is && possible[id] !== is)
          expect.fail(`token ${id} of ${logits} under ${JSON.stringify(options)}`);
        // Of equal tokens the first.
        const tie = logits.indexOf(logits[id]!);
        if (is && !kept[tie]) expect.fail(`token ${id} is kept, and not ${tie}, of ${logits}`);
      }
      for (const [id, p] of softmax(scores, kept).entries())
        expect(Math.abs(found[id]! - p)).toBeLessThanOrEqual(4 * logits.length * Number.EPSILON * p);
    };

    const filters = fc.record(
      {
        topK: fc.integer({ min: 1, max: 30 }),
        topP: fc.double({ min: 1e-9, max: 1, noNaN: true }),
        minP: fc.double({ min: 0, max: 1, noNaN: true }),
      },
      { requiredKeys: [] },
    );

    it.each<[string, fc.Arbitrary<number>]>([
      ["ties", fc.integer({ min: -4, max: 4 })],
      ["zeros of both signs", fc.constantFrom(0, -0, 1, -1)],
      ["scores far from each other", fc.double({ min: -800, max: 800, noNaN: true })],
      ["nearly equal scores", fc.integer({ min: 0, max: 9 }).map((ulps) => 1 + ulps * Number.EPSILON)],
      ["scores that are minus infinity", fc.constantFrom(Number.NEGATIVE_INFINITY, -3, 0, 2.5)],
    ])("for %s", (_name, score) => {
      const some = fc
        .array(score, { minLength: 1, maxLength: 40 })
        .filter((all) => Math.max(...all) > Number.NEGATIVE_INFINITY);
      fc.assert(fc.property(some, filters, check));
    });

    it("for a large vocabulary", () => {
      const V = 3001;
      const noise = (spread: number) => Array.from({ length: V }, (_, id) => spread * Math.sin(id * id));
      const cases = [
        noise(0.05),
        noise(8),
        noise(0).fill(2),
        noise(0).map((_, id) => Math.min(id % 7, 3)),
        noise(0).map((_, id) => -id),
      ];
      for (const logits of cases) {
        for (const topP of [0.001, 0.5, 0.9, 0.999999]) check(logits, { topP });
        for (const topK of [1, 40, 3000]) check(logits, { topK, topP: 0.95, minP: 0.01 });
      }
    });

    it("for equal tokens, as many as there is room for, the lowest ids", () => {
      // 8 of 10 before the ninth are 0.8; ten times a tenth, one after the other, would be less.
      for (const [topP, kept] of [
        [0.8, 8],
        [0.81, 9],
        [0.3, 3],
        [0.05, 1],
      ] as const)
        expect([...probabilities(new Array(10).fill(-7), { topP })]).toEqual(
          Array.from({ length: 10 }, (_, id) => (id < kept ? 1 / kept : 0)),
        );
      expect([...probabilities([1.5], { topP: 0.1, topK: 3, minP: 1 })]).toEqual([1]);
    });
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

describe("sampleToken", () => {
  it("draws of the probabilities, whatever was drawn before", () => {
    const options = resolveSampling({ topK: 3, temperature: 0.7 });
    const history = { drawn: new Map([[1, 2]]) };
    for (const V of [5, 9, 2]) {
      const logits = Float32Array.from({ length: V }, (_, id) => Math.cos(3 * id));
      for (const u of [0, 0.3, 0.6, 0.999])
        expect(sampleToken(logits, options, history, u)).toBe(
          drawToken(tokenProbabilities(logits, options, history), u),
        );
    }
  });
});
