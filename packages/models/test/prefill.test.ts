/** What a pass over a prompt does beside its products: nothing that moves weights, clears memory or norms rows that nobody scores. */
import { join } from "node:path";
import { profile, scope, type Tensor, tensor } from "@llmeff/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { KvCache, loadHuggingFace, type Parameters, saveHuggingFace, Transformer } from "../src/index.js";
import { temporaryFolder } from "./temporary-folder.js";

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

function read(params: Parameters): Tensor {
  using cache = new KvCache(model.config, { expected: T });
  return model.lastLogits(params, prompt, cache);
}

function callsOf(params: Parameters): Record<string, number> {
  scope(() => void read(params)); // the first makes rotary tables
  const { ops } = profile(() => scope(() => void read(params)));
  return Object.fromEntries(ops.map(({ op, calls }) => [op, calls]));
}

describe("a pass over a prompt", () => {
  it("moves nothing but new keys and values", () => {
    expect(callsOf(params)).toEqual({
      embedding: 1,
      rmsNorm: 2 * 2 + 1,
      matmulTransposed: 2 * 4 + 1, // of each block and of the scores
      ropeAndKeep: 2,
      attention: 2,
      swiglu: 2,
    });
  });

  it("does so with the parameters of a checkpoint", async () => {
    const folder = join(temporaryFolder(), "model");
    await saveHuggingFace(folder, model, params);
    const loaded = await loadHuggingFace(folder);
    expect(callsOf(loaded.params)).toEqual(callsOf(params));
  });

  it("has the scores of every position's, and of weights that lie apart", () => {
    scope(() => {
      const apart = Object.fromEntries(Object.entries(params).map(([name, x]) => [name, x.clone()]));
      expect(callsOf(apart)).toMatchObject({ copy: 2 * 5 });
      const scores = read(params).dataSync();
      expect(read(apart).dataSync()).toEqual(scores);
      const all = model.logits(params, prompt).dataSync();
      for (const [i, score] of scores.entries()) expect(score).toBeCloseTo(all[(T - 1) * 32 + i] as number, 4);
    });
  });
});
