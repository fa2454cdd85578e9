import { describe, expect, it } from "vitest";
import { simplicialPairs, trainingFlopsPerToken } from "./accounting.js";
import { resolveConfig } from "./config.js";

describe("simplicialPairs", () => {
  it("is the sum over queries of the product of what the windows hold", () => {
    for (const T of [1, 2, 5, 16]) {
      for (const w1 of [1, 3, 7, 16, undefined]) {
        for (const w2 of [1, 2, 5, 40, undefined]) {
          let pairs = 0;
          for (let i = 0; i < T; i++) pairs += Math.min(i + 1, w1 ?? T) * Math.min(i + 1, w2 ?? T);
          expect(simplicialPairs(T, w1, w2), `${T} ${w1} ${w2}`).toBe(pairs);
        }
      }
    }
  });
});

describe("trainingFlopsPerToken", () => {
  const shape = { vocabSize: 65, dModel: 32, numLayers: 1, numHeads: 2, maxSeqLen: 16, ffnDim: 64 };

  it("counts six for each weight and twelve for each channel of an allowed key", () => {
    const config = resolveConfig({ ...shape, tieEmbeddings: true });
    // weights: embedding 65·32, attention 4·32·32, feed-forward 3·32·64, norms 3·32
    const weights = 65 * 32 + 4 * 32 * 32 + 3 * 32 * 64 + 3 * 32;
    // 16 causal queries see 1 + 2 + … + 16 = 136 keys: 8.5 on average
    expect(trainingFlopsPerToken(config, 16)).toEqual({
      matmul: 6 * weights,
      attention: 12 * 32 * 8.5,
      total: 6 * weights + 12 * 32 * 8.5,
    });
    expect(trainingFlopsPerToken(config, 16, { causal: false }).attention).toBe(12 * 32 * 16);
  });

  it("counts fourteen for each channel of an allowed pair", () => {
    const config = resolveConfig({ ...shape, attention: [{ kind: "simplicial", w1: 4, w2: 2 }] });
    expect(trainingFlopsPerToken(config, 16).attention).toBe((14 * 32 * simplicialPairs(16, 4, 2)) / 16);
  });

  it("counts of a mixture's experts those that a token meets, and all that is not an expert", () => {
    const experts = { numExperts: 8, topK: 2, expertDim: 16, sharedDim: 24, denseLayers: 1 };
    const flops = (given: object) =>
      trainingFlopsPerToken(
        resolveConfig({ ...shape, numLayers: 2, tieEmbeddings: true, experts: { ...experts, ...given } }),
        16,
      ).matmul / 6;
    // Embedding, two layers of attention and norms, the last norm; a dense layer; router, two experts and the shared one.
    const rest = 65 * 32 + 2 * (4 * 32 * 32 + 2 * 32) + 32;
    const routed = (experts: number) => 8 * 32 + experts * 3 * 32 * 16 + 3 * 32 * 24;
    expect(flops({})).toBe(rest + 3 * 32 * 64 + routed(2));
    expect(flops({ topK: 1, score: "sigmoid", routerBias: true })).toBe(rest + 3 * 32 * 64 + routed(1));
    expect(flops({ capacityFactor: 1.25 }), "tokens choose as many, whatever the places").toBe(flops({}));
    expect(flops({ choice: "expert", capacityFactor: 1.5 })).toBe(rest + 3 * 32 * 64 + routed(3));
    expect(flops({ choice: "expert", capacityFactor: 9 })).toBe(rest + 3 * 32 * 64 + routed(8));
  });

  it("leaves out the input embedding when the output has a matrix of its own", () => {
    const tied = trainingFlopsPerToken(resolveConfig({ ...shape, tieEmbeddings: true }), 16);
    const untied = trainingFlopsPerToken(resolveConfig(shape), 16);
    expect(untied).toEqual(tied);
  });
});
