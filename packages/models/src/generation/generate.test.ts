import { memory, scope, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { collectGarbage } from "../../../../test/garbage.js";
import { expectSame } from "../../test/expect-same.js";
import { KvCache } from "../cache.js";
import type { TransformerConfig } from "../config.js";
import { Transformer } from "../transformer.js";
import { generate } from "./generate.js";

const model = new Transformer({
  vocabSize: 7,
  dModel: 16,
  numLayers: 2,
  numHeads: 2,
  maxSeqLen: 24,
  initStd: 0.5,
  attention: [
    { kind: "dot", window: 4 },
    { kind: "simplicial", w1: 5, w2: 2 },
  ],
});
const params = model.init(1);
const plain: TransformerConfig = { vocabSize: 7, dModel: 16, numLayers: 2, numHeads: 2, maxSeqLen: 24 };

async function collect(options: Parameters<typeof generate>[3], prompt = [1, 2, 3]): Promise<number[]> {
  const ids: number[] = [];
  for await (const id of generate(model, params, prompt, options)) ids.push(id);
  return ids;
}

describe("generate", () => {
  it.each(["bfloat16", "float16"] as const)("reads the scores of %s parameters as numbers", async (dtype) => {
    const narrow = model.init(1, { dtype });
    const sequence = [1, 2, 3];
    for await (const id of generate(model, narrow, sequence.slice(), { maxTokens: 6, temperature: 0 })) {
      const tokens = tensor(Int32Array.from(sequence), { shape: [1, sequence.length] });
      const logits = scope(() => [...model.lastLogits(narrow, tokens).astype("float32").dataSync()]);
      // The cache rounds keys and values no further, but sums may be ordered otherwise: near ties are ties.
      expect(logits[id]! + 0.02).toBeGreaterThan(Math.max(...logits));
      sequence.push(id);
    }
    expect(sequence).toHaveLength(9);
  });

  it("at temperature 0 follows the likeliest token of the full forward pass", async () => {
    const ids = await collect({ maxTokens: 12, temperature: 0 });
    const sequence = [1, 2, 3];
    for (const id of ids) {
      const logits = scope(() =>
        model.lastLogits(params, tensor(Int32Array.from(sequence), { shape: [1, sequence.length] })).dataSync(),
      );
      expect(id).toBe(logits.indexOf(Math.max(...logits)));
      sequence.push(id);
    }
    expect(ids).toHaveLength(12);
  });

  it("writes the same whether the prompt goes through at once or in chunks", async () => {
    const prompt = [1, 2, 3, 4, 5, 6, 0, 1, 1];
    const whole = await collect({ maxTokens: 10, temperature: 0 }, prompt);
    for (const prefillChunk of [1, 2, 4, 9, 50]) {
      expect(await collect({ maxTokens: 10, temperature: 0, prefillChunk }, prompt)).toEqual(whole);
    }
    await expect(collect({ maxTokens: 1, prefillChunk: 0 })).rejects.toThrow(/prefillChunk/);
  });

  it("draws the same tokens for the same seed and others for another", async () => {
    const draw = (seed: number) => collect({ maxTokens: 20, seed });
    expect(await draw(5)).toEqual(await draw(5));
    expect(await draw(5)).not.toEqual(await draw(6));
  });

  it("remembers no more positions than it needs", async () => {
    const long = new Transformer({ ...plain, maxSeqLen: 1_000_000 });
    const weights = long.init(1);
    const before = memory().liveBytes;
    const run = generate(long, weights, [1, 2, 3], { maxTokens: 3 });
    await run.next();
    // Keys and values of a million positions in two layers would take 256 MB.
    expect(memory().liveBytes - before).toBeLessThan(100e3);
    await run.return(undefined);
    long.dispose();
  });

  it("gives the same scores, whatever number of positions its cache expected", () => {
    const ids = Int32Array.from({ length: 23 }, (_, i) => (i * 5) % 7);
    const scores = (expected: number) => {
      using cache = new KvCache(model.config, { expected });
      return [...ids].map((id) =>
        scope(() => [...model.lastLogits(params, tensor([[id]], { dtype: "int32" }), cache).dataSync()]),
      );
    };
    for (const expected of [1, 5, 1000]) expectSame(scores(expected), scores(model.config.maxSeqLen));
    expect(() => new KvCache(model.config, { expected: 0 })).toThrow(/expected must be a positive integer; received 0/);
  });

  it("draws none of the ids that pad the vocabulary", async () => {
    const drawn = await collect({ maxTokens: 20, vocabSize: 3, seed: 4, temperature: 3 });
    expect(new Set(drawn)).toEqual(new Set([0, 1, 2]));
    for (const vocabSize of [0, 8, 1.5])
      await expect(collect({ maxTokens: 1, vocabSize })).rejects.toThrow(/vocabSize must be an integer in 1\.\.7/);
  });

  it("ends at maxTokens, at a stop token, and where the model's positions end", async () => {
    expect(await collect({ maxTokens: 0 })).toEqual([]);
    const free = await collect({ maxTokens: 100, seed: 2 });
    expect(free).toHaveLength(24 - 3 + 1);
    const stop = free[4]!;
    expect(await collect({ maxTokens: 100, seed: 2, stopTokens: [stop] })).toEqual(
      free.slice(0, free.indexOf(stop) + 1),
    );
  });

  it("stops when aborted, and frees its memory", async () => {
    await collect({ maxTokens: 2 });
    await collectGarbage();
    const before = memory().tensors;
    const controller = new AbortController();
    await expect(async () => {
      for await (const _ of generate(model, params, [1], { maxTokens: 10, signal: controller.signal }))
        controller.abort();
    }).rejects.toThrow(/abort/i);
    expect(memory().tensors).toBe(before);
  });

  it.each([
    [{ maxTokens: 3 }, [], /at least one token; received none/],
    [{ maxTokens: 3 }, new Array(25).fill(1), /prompt has 25 tokens; the model's maxSeqLen is 24/],
    [{ maxTokens: 3 }, [1, 1.5], /prompt\[1\] must be a token id, an integer of 32 bits; received 1\.5/],
    [{ maxTokens: 3 }, [Number.NaN], /received NaN/],
    [{ maxTokens: 3 }, [2 ** 32 + 1], /received 4294967297/],
    [{ maxTokens: 3 }, [undefined], /received undefined/],
    [{ maxTokens: -1 }, [1], /maxTokens must be a non-negative integer; received -1/],
    [{ maxTokens: 1, temperature: Number.NaN }, [1], /temperature must be a number ≥ 0; received NaN/],
  ])("refuses %o with prompt %o", async (options, prompt, message) => {
    await expect(collect(options, prompt as number[])).rejects.toThrow(message);
  });

  it("rejects a prompt with a token outside of the vocabulary, and goes on working", async () => {
    await expect(collect({ maxTokens: 2 }, [1, 7])).rejects.toThrow(
      /token id 7 at prompt\[1\] is outside the vocabulary of 7/,
    );
    expect(await collect({ maxTokens: 2 })).toHaveLength(2);
  });
});
