/** Questions about one text: what a cache of the caller holds of a prompt doesn't go through the model again. */
import { memory } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { collectGarbage } from "../../../../test/garbage.js";
import { KvCache } from "../cache.js";
import { Transformer } from "../transformer.js";
import { BatchGenerator } from "./batch-generator.js";
import { generate } from "./generate.js";
import type { GenerateOptions } from "./options.js";

const config = { vocabSize: 11, dModel: 16, numLayers: 2, numHeads: 2, maxSeqLen: 64, initStd: 0.5 };
const model = new Transformer({ ...config, attention: [{ kind: "dot", window: 6 }, { kind: "dot" }] });
const params = model.init(1);
const text = Array.from({ length: 20 }, (_, i) => (i * i + 3 * i) % 11);
const questions = [[1, 2, 3], [4], [5, 6, 7, 8, 9]];

async function all(tokens: AsyncIterable<number>): Promise<number[]> {
  const ids: number[] = [];
  for await (const id of tokens) ids.push(id);
  return ids;
}

describe("generate with a cache of the caller", () => {
  it.each<Omit<GenerateOptions, "maxTokens">>([
    { temperature: 0 },
    { temperature: 0, prefillChunk: 3 },
    { temperature: 1.5, topK: 5, seed: 9, presencePenalty: 0.3 },
    { temperature: 0, repetitionPenalty: 1.4, stopTokens: [3, 7] },
  ])("draws what it draws from the whole prompt, question after question: %o", async (options) => {
    await all(generate(model, params, text, { maxTokens: 1 })); // makes the rotary tables, which are the model's
    await collectGarbage();
    const before = memory().tensors;
    const cache = new KvCache(model.config, { expected: 30, rollback: 16 });
    for (const question of questions) {
      const prompt = [...text, ...question];
      const expected = await all(generate(model, params, prompt, { maxTokens: 9, ...options }));
      const found = await all(generate(model, params, prompt, { maxTokens: 9, cache, ...options }));
      expect(found).toEqual(expected);
      expect(cache.length).toBe(prompt.length + found.length - 1);
      cache.truncate(text.length);
    }
    cache.dispose();
    expect(memory().tensors).toBe(before);
  });

  it("takes only the new words through the model", async () => {
    using cache = new KvCache(model.config, { rollback: 16 });
    using batch = new BatchGenerator(model, params);
    const ask = async (prompt: readonly number[]) => {
      for await (const _ of batch.generate(prompt, { maxTokens: 1, temperature: 0, cache }));
    };
    await ask([...text, 1]);
    expect(batch.prompts).toEqual({ read: text.length + 1, reused: 0 });
    cache.truncate(text.length);
    await ask([...text, 4, 5]);
    expect(batch.prompts).toEqual({ read: text.length + 3, reused: text.length });
    expect(batch.active).toBe(0);
    expect(cache.length).toBe(text.length + 2);
  });

  it("drafts with a small model that hasn't read the text", async () => {
    const small = new Transformer({ ...config, numLayers: 1 });
    const draft = { model: small, params: small.init(2), tokens: 3 };
    using cache = new KvCache(model.config, { rollback: 16 });
    await all(generate(model, params, [...text, 1], { maxTokens: 1, cache }));
    cache.truncate(text.length);
    using batch = new BatchGenerator(model, params, { draft });
    const prompt = [...text, 4, 5];
    const found: number[] = [];
    for await (const { id } of batch.generate(prompt, { maxTokens: 9, temperature: 0, cache })) found.push(id);
    expect(found).toEqual(await all(generate(model, params, prompt, { maxTokens: 9, temperature: 0 })));
  });

  it("leaves it to its owner at maxSeqLen and at a signal", async () => {
    const few = new Transformer({ ...config, maxSeqLen: 22 });
    const own = few.init(1);
    using cache = new KvCache(few.config);
    expect(await all(generate(few, own, text, { maxTokens: 50, temperature: 0, cache }))).toHaveLength(3);
    expect(cache.length).toBe(22);
    using stopped = new KvCache(model.config, { rollback: 16 });
    const controller = new AbortController();
    const { signal } = controller;
    const run = async () => {
      for await (const _ of generate(model, params, text, { maxTokens: 9, cache: stopped, signal }))
        controller.abort(new Error("enough"));
    };
    await expect(run()).rejects.toThrow("enough");
    stopped.truncate(text.length);
    const after = { maxTokens: 4, temperature: 0 };
    expect(await all(generate(model, params, [...text, 1], { ...after, cache: stopped }))).toEqual(
      await all(generate(model, params, [...text, 1], after)),
    );
  });

  it.each([true, false])(
    "gives it back counted, however long after a token its reader leaves (captureStep %j)",
    async (captureStep) => {
      const prompt = [...text, 9, 8];
      const expected = await all(generate(model, params, prompt, { maxTokens: 9, temperature: 0 }));
      for (let ticks = 0; ticks < 40; ticks++) {
        using cache = new KvCache(model.config, { expected: 60, rollback: 60 });
        await using batch = new BatchGenerator(model, params, { captureStep, readAhead: 100 });
        let drawn = 0;
        for await (const _ of batch.generate(text, { maxTokens: 40, temperature: 0, cache })) {
          if (++drawn < 8) continue;
          for (let i = 0; i < ticks; i++) await undefined;
          break;
        }
        cache.truncate(text.length);
        const found: number[] = [];
        for await (const { id } of batch.generate(prompt, { maxTokens: 9, temperature: 0, cache })) found.push(id);
        expect(found, `${ticks} ticks`).toEqual(expected);
      }
    },
  );

  it("refuses one that another sequence is writing into, of whatever batch, until that has ended", async () => {
    using cache = new KvCache(model.config, { rollback: 40 });
    using batch = new BatchGenerator(model, params, { maxSequences: 1 });
    const options = { maxTokens: 9, temperature: 0, cache };
    const first = batch.generate(text, options);
    expect(() => batch.generate(text, options)).toThrow(
      /no other sequence is using.*Wait for its end, or give each a clone/,
    );
    await expect(generate(model, params, text, options).next()).rejects.toThrow(/no other sequence is using/);
    const own = await all(generate(model, params, text, { ...options, cache: new KvCache(model.config) }));
    const found: number[] = [];
    for await (const { id } of first) found.push(id);
    expect(found).toEqual(own);
    for (const leave of [
      () => batch.generate(text, options).return(undefined),
      () => all(generate(model, params, text, options)),
    ]) {
      cache.truncate(text.length - 1);
      await leave();
    }
    const controller = new AbortController();
    cache.truncate(text.length - 1);
    const aborted = batch.generate(text, { ...options, signal: controller.signal });
    controller.abort(new Error("enough"));
    await expect(aborted.next()).rejects.toThrow("enough");
    cache.truncate(0);
    expect(await all(generate(model, params, text, options))).toEqual(own);
  });

  it("refuses caches that don't fit, before anything is computed", async () => {
    using cache = new KvCache(model.config);
    await all(generate(model, params, text, { maxTokens: 1, cache }));
    const longer = generate(model, params, text, { maxTokens: 1, cache });
    await expect(longer.next()).rejects.toThrow(/at least its last token must be left. Use truncate\(19\)/);
    const prefixed = generate(model, params, [...text, 1], { maxTokens: 1, cache, prefix: 5 });
    await expect(prefixed.next()).rejects.toThrow(/first 5 tokens of the prompt go through the model at once/);
    expect(cache.length).toBe(text.length);
    const ropeScaling = { type: "dynamic", factor: 2, originalLength: 8 } as const;
    const dynamic = new Transformer({ ...config, ropeScaling });
    const own = dynamic.init(1);
    using begun = new KvCache(dynamic.config);
    const options = { maxTokens: 2, temperature: 0, prefillChunk: 4 };
    expect(await all(generate(dynamic, own, text, { ...options, cache: begun }))).toEqual(
      await all(generate(dynamic, own, text, options)),
    );
    begun.truncate(4);
    await expect(generate(dynamic, own, text, { maxTokens: 1, cache: begun }).next()).rejects.toThrow(
      /first 20 tokens of the prompt go through the model at once; 4 of them are in the cache/,
    );
  });
});
