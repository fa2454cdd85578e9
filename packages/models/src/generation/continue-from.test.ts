import { memory } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { KvCache } from "../cache.js";
import { Transformer } from "../transformer.js";
import { type ContinueOptions, continueFrom } from "./continue-from.js";
import { generate } from "./generate.js";

const config = { vocabSize: 11, dModel: 16, numLayers: 2, numHeads: 2, maxSeqLen: 64, initStd: 0.5 };
const model = new Transformer({
  ...config,
  attention: [
    { kind: "dot", window: 6 },
    { kind: "dot", rope: false, scaleFrom: 8 },
  ],
});
const params = model.init(1);
const text = Array.from({ length: 20 }, (_, i) => (i * i + 3 * i) % 11);
const questions = [[1, 2, 3], [4], [5, 6, 7, 8, 9]];

async function all(tokens: AsyncIterable<number>): Promise<number[]> {
  const ids: number[] = [];
  for await (const id of tokens) ids.push(id);
  return ids;
}

describe("continueFrom", () => {
  it.each<Omit<ContinueOptions, "maxTokens">>([
    { temperature: 0 },
    { temperature: 0, prefillChunk: 3 },
    { temperature: 1.5, topK: 5, seed: 9, presencePenalty: 0.3 },
    { temperature: 0, repetitionPenalty: 1.4, stopTokens: [3, 7] },
  ])("draws what generate draws from the whole prompt, question after question: %o", async (options) => {
    const before = memory().tensors;
    const cache = new KvCache(model.config, { expected: 30, rollback: 16 });
    for (const question of questions) {
      const prompt = [...text, ...question];
      const expected = await all(generate(model, params, prompt, { maxTokens: 9, ...options }));
      const found = await all(continueFrom(model, params, cache, prompt, { maxTokens: 9, ...options }));
      expect(found).toEqual(expected);
      expect(cache.length).toBe(prompt.length + found.length - 1);
      cache.truncate(text.length);
    }
    cache.dispose();
    // The rotary tables, which are the model's, may have been made here.
    expect(memory().tensors).toBeLessThanOrEqual(before + 2);
  });

  it("takes only the new words through the model", async () => {
    using cache = new KvCache(model.config, { rollback: 16 });
    await all(continueFrom(model, params, cache, [...text, 1], { maxTokens: 1, temperature: 0 }));
    cache.truncate(text.length);
    const lengths: number[] = [];
    const counting = new Proxy(model, {
      get(target, name) {
        if (name !== "lastLogits" && name !== "hidden") return Reflect.get(target, name, target);
        return (...args: Parameters<Transformer["lastLogits"]>) => {
          lengths.push(args[1].shape[1]!);
          return target[name](...args);
        };
      },
    });
    await all(continueFrom(counting, params, cache, [...text, 4, 5], { maxTokens: 3, temperature: 0 }));
    expect(lengths).toEqual([2, 1, 1]);
  });

  it("ends at maxSeqLen, and at a signal with the cache as long as what it has seen", async () => {
    const few = new Transformer({ ...config, maxSeqLen: 22 });
    const own = few.init(1);
    using cache = new KvCache(few.config);
    expect(await all(continueFrom(few, own, cache, text, { maxTokens: 50, temperature: 0 }))).toHaveLength(3);
    expect(cache.length).toBe(22);
    using stopped = new KvCache(model.config);
    const controller = new AbortController();
    const run = async () => {
      for await (const _ of continueFrom(model, params, stopped, text, { maxTokens: 9, signal: controller.signal }))
        controller.abort(new Error("enough"));
    };
    await expect(run()).rejects.toThrow("enough");
    expect(stopped.length).toBe(text.length);
  });

  it("refuses caches that don't fit, before anything is computed", async () => {
    using cache = new KvCache(model.config);
    await all(continueFrom(model, params, cache, text, { maxTokens: 1 }));
    const longer = continueFrom(model, params, cache, text, { maxTokens: 1 });
    await expect(longer.next()).rejects.toThrow(/at least its last token must be left. Use truncate\(19\)/);
    const chunked = continueFrom(model, params, cache, [...text, 1], { maxTokens: 1, prefillChunk: 0 });
    await expect(chunked.next()).rejects.toThrow(/prefillChunk must be a positive integer/);
    expect(cache.length).toBe(text.length);
    const ropeScaling = { type: "dynamic", factor: 2, originalLength: 8 } as const;
    const dynamic = new Transformer({ ...config, ropeScaling });
    const own = dynamic.init(1);
    using begun = new KvCache(dynamic.config);
    expect(
      await all(continueFrom(dynamic, own, begun, text, { maxTokens: 2, temperature: 0, prefillChunk: 4 })),
    ).toEqual(await all(generate(dynamic, own, text, { maxTokens: 2, temperature: 0 })));
    begun.truncate(4);
    await expect(continueFrom(dynamic, own, begun, text, { maxTokens: 1 }).next()).rejects.toThrow(
      /under dynamic rotary scaling a prompt of 20 tokens goes through the model at once/,
    );
  });
});
