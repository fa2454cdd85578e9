/** What a pass over a prompt does beside its products: nothing that clears memory or norms rows that nobody scores. */
import { profile, scope, type Tensor, tensor } from "@llmeff/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { KvCache, Transformer } from "../src/index.js";

const T = 300; // rows whose products are one
const model = new Transformer({
  vocabSize: 32,
  dModel: 32,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
  ffnDim: 64,
  maxSeqLen: 2 * T,
  initStd: 0.3,
});
const params = model.init(1);
const prompt = tensor(
  Int32Array.from({ length: T }, (_, i) => (7 * i * i) % 32),
  { shape: [1, T] },
);
afterAll(() => model.dispose());

function read(): Tensor {
  using cache = new KvCache(model.config, { expected: T });
  return model.lastLogits(params, prompt, cache);
}

describe("a pass over a prompt", () => {
  it("moves nothing but weights that are multiplied together, new keys and values", () => {
    scope(() => void read()); // makes rotary tables
    const { ops } = profile(() => scope(() => void read()));
    expect(Object.fromEntries(ops.map(({ op, calls }) => [op, calls]))).toEqual({
      embedding: 1,
      copy: 2 * 5, // q, k, v; gate, up
      rmsNorm: 2 * 2 + 1,
      matmulTransposed: 2 * 4 + 1, // of each block and of the scores
      ropeAndKeep: 2,
      attention: 2,
      swiglu: 2,
    });
  });

  it("has the scores of a pass that scores every position", () => {
    scope(() => {
      const all = model.logits(params, prompt).dataSync();
      for (const [i, score] of read().dataSync().entries())
        expect(score).toBeCloseTo(all[(T - 1) * 32 + i] as number, 4);
    });
  });
});
