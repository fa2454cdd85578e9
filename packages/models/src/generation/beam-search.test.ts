import { memory, scope, tensor } from "@llmeff/tensor";
import { describe, expect, it, vi } from "vitest";
import { KvCache } from "../cache.js";
import type { TransformerConfig } from "../config.js";
import { Transformer } from "../transformer.js";
import { beamSearch } from "./beam-search.js";
import { generate } from "./generate.js";

const config: TransformerConfig = {
  vocabSize: 4,
  dModel: 16,
  numLayers: 2,
  numHeads: 2,
  maxSeqLen: 16,
  ffnDim: 24,
  initStd: 0.5,
  attention: [
    { kind: "dot", window: 3 },
    { kind: "simplicial", w1: 4, w2: 2 },
  ],
};
const model = new Transformer(config);
const params = model.init(7);
const prompt = [1, 3, 0];

/** Log-probabilities of the next token. */
function next(ids: readonly number[]): number[] {
  const z = scope(() => {
    const tokens = tensor(Int32Array.from(ids), { shape: [1, ids.length] });
    return Array.from(model.lastLogits(params, tokens).dataSync() as Float32Array);
  });
  const total = Math.log(z.reduce((sum, x) => sum + Math.exp(x), 0));
  return z.map((x) => x - total);
}

/** All continuations with their scores, the best first. */
function everything(maxTokens: number, stopTokens: readonly number[], lengthPenalty: number) {
  const found: { ids: number[]; score: number }[] = [];
  const walk = (ids: number[], logProb: number): void => {
    if (ids.length === maxTokens || stopTokens.includes(ids.at(-1)!)) {
      found.push({ ids, score: logProb / ids.length ** lengthPenalty });
      return;
    }
    for (const [id, p] of next([...prompt, ...ids]).entries()) walk([...ids, id], logProb + p);
  };
  walk([], 0);
  return found.sort((a, b) => b.score - a.score);
}

describe("beamSearch", () => {
  it.each([
    [[], 1],
    [[2], 1],
    [[2], 0],
    [[0, 2], 0.5],
    [[2], 2],
  ])(
    "finds the best of all continuations if it follows all of them; stop tokens %j, length to the %d",
    async (stopTokens, lengthPenalty) => {
      const expected = everything(4, stopTokens, lengthPenalty);
      const beams = await beamSearch(model, params, prompt, { beams: 256, maxTokens: 4, stopTokens, lengthPenalty });
      for (const [i, { ids, score }] of expected.slice(0, 20).entries()) {
        expect(beams[i]!.ids).toEqual(ids);
        expect(beams[i]!.score).toBeCloseTo(score, 5);
      }
      expect(beams).toHaveLength(expected.length);
    },
  );

  it("with one beam follows the likeliest token", async () => {
    const greedy: number[] = [];
    for await (const id of generate(model, params, prompt, { maxTokens: 8, temperature: 0 })) greedy.push(id);
    const [beam] = await beamSearch(model, params, prompt, { beams: 1, maxTokens: 8 });
    expect(beam!.ids).toEqual(greedy);
  });

  it("finds no less with more beams", async () => {
    const best = async (beams: number) =>
      (await beamSearch(model, params, prompt, { beams, maxTokens: 6, lengthPenalty: 0 }))[0]!.logProb;
    const found = [await best(1), await best(4), await best(64)];
    // The same text sums up in another order in a larger batch.
    for (const i of [1, 2]) expect(found[i]!).toBeGreaterThan(found[i - 1]! - 1e-5);
    expect(found[2]).toBeCloseTo(everything(6, [], 0)[0]!.score, 5);
  });

  it("frees what it has made, also when it is aborted", async () => {
    const run = (signal?: AbortSignal) =>
      beamSearch(model, params, prompt, { beams: 3, maxTokens: 9, ...(signal ? { signal } : {}) });
    await run();
    const before = memory().tensors;
    await run();
    expect(memory().tensors).toBe(before);
    const reason = new Error("enough");
    await expect(run(AbortSignal.abort(reason))).rejects.toBe(reason);
    expect(memory().tensors).toBe(before);
  });

  it("frees the copies that it has made when there is no room for another", async () => {
    const run = () => beamSearch(model, params, prompt, { beams: 3, maxTokens: 9 });
    await run();
    const before = memory().tensors;
    const { clone } = KvCache.prototype;
    let clones = 0;
    // The first step copies the prompt's cache for the second beam and the third.
    const copying = vi.spyOn(KvCache.prototype, "clone").mockImplementation(function (this: KvCache, options) {
      if (++clones === 2) throw new Error("no room");
      return clone.call(this, options);
    });
    await expect(run()).rejects.toThrow("no room");
    copying.mockRestore();
    expect(clones).toBe(2);
    expect(memory().tensors).toBe(before);
  });

  it("ends where the model's positions end, and gives nothing for no token", async () => {
    const beams = await beamSearch(model, params, prompt, { beams: 2, maxTokens: 99 });
    expect(beams.map(({ ids }) => ids.length)).toEqual([14, 14]);
    expect(await beamSearch(model, params, prompt, { beams: 2, maxTokens: 0 })).toEqual([]);
  });

  it.each([
    [{ beams: 0, maxTokens: 1 }, /beams must be a positive integer; received 0/],
    [{ beams: 1, maxTokens: 1, lengthPenalty: -1 }, /lengthPenalty must be a number ≥ 0; received -1/],
    [{ beams: 1, maxTokens: -1 }, /maxTokens must be a non-negative integer/],
  ])("refuses %o", async (options, message) => {
    await expect(beamSearch(model, params, prompt, options)).rejects.toThrow(message);
  });
});
