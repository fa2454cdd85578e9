import { engine, OutOfMemoryError } from "@llmeff/native";
import { copyInto, defaultDevice, full, memory, scope, tensor } from "@llmeff/tensor";
import { describe, expect, it, vi } from "vitest";
import { collectGarbage } from "../../../../test/garbage.js";
import { KvCache } from "../cache.js";
import type { TransformerConfig } from "../config.js";
import { Transformer } from "../transformer.js";
import { BatchGenerator } from "./batch-generator.js";
import { generateTokens } from "./generate.js";
import type { GeneratedToken, GenerateOptions, SequenceOptions } from "./options.js";

const base: TransformerConfig = {
  vocabSize: 40,
  dModel: 32,
  numLayers: 2,
  numHeads: 4,
  maxSeqLen: 400,
  initStd: 0.4,
};
const models: Record<string, TransformerConfig> = {
  plain: base,
  "grouped heads with norms, tied": { ...base, numKvHeads: 2, tieEmbeddings: true, qkNorm: true },
  "windows, and logits that grow with the length": {
    ...base,
    attention: [
      { kind: "dot", window: 20 },
      { kind: "dot", scaleFrom: 16, rope: false },
    ],
  },
  "learned positions, post-norm, biases": {
    ...base,
    positions: "learned",
    block: "post",
    norm: "layer",
    attentionBias: "all",
    feedForward: "gelu",
    feedForwardBias: true,
  },
  "scaled frequencies, soft caps": {
    ...base,
    ropeScaling: { type: "linear", factor: 4 },
    attentionSoftcap: 5,
    finalSoftcap: 8,
  },
  "a mixture of experts": { ...base, experts: { numExperts: 4, topK: 2, expertDim: 16 } },
  "2-simplicial layers, which aren't captured": {
    ...base,
    attention: [{ kind: "simplicial", w1: 5, w2: 2 }, { kind: "dot" }],
  },
  "dynamic scaling, which isn't captured": { ...base, ropeScaling: { type: "dynamic", factor: 2, originalLength: 30 } },
};

async function all(tokens: AsyncIterable<GeneratedToken>): Promise<GeneratedToken[]> {
  const list: GeneratedToken[] = [];
  for await (const token of tokens) list.push(token);
  return list;
}

/** The same bits on the CPU; on a GPU few products are summed in another order. */
function expectSame(found: readonly GeneratedToken[], wanted: readonly GeneratedToken[]) {
  expect(found.map(({ id }) => id)).toEqual(wanted.map(({ id }) => id));
  if (defaultDevice() === "cpu") return expect(found).toEqual(wanted);
  for (const [i, { logProb }] of found.entries()) expect(logProb).toBeCloseTo(wanted[i]!.logProb, 3);
}

describe("captured steps", () => {
  it.each(Object.entries(models))("write what uncaptured ones write: %s", async (_name, config) => {
    const model = new Transformer(config);
    const params = model.init(3);
    const ways: Omit<GenerateOptions, "maxTokens">[] = [
      { temperature: 0 },
      { temperature: 0.9, topP: 0.9, seed: 5, topLogProbs: 2 },
      { temperature: 0.9, seed: 6 },
      { temperature: 1.2, topK: 12, topP: 0.9, minP: 0.02, seed: 7, vocabSize: 35 },
      { temperature: 0, repetitionPenalty: 1.3, vocabSize: 33 },
    ];
    for (const way of ways) {
      const options = { maxTokens: 60, ...way };
      const captured = await all(generateTokens(model, params, [1, 2, 3], options));
      const plain = await all(generateTokens(model, params, [1, 2, 3], { ...options, captureStep: false }));
      expect(captured).toHaveLength(60);
      expectSame(captured, plain);
    }
    model.dispose();
  });

  it("go on when the rows move to a larger memory", async () => {
    const model = new Transformer(base);
    const params = model.init(4);
    const options = { maxTokens: 330, temperature: 0 }; // room is made for 256 at first
    const captured = await all(generateTokens(model, params, [7], options));
    expectSame(captured, await all(generateTokens(model, params, [7], { ...options, captureStep: false })));
    expect(captured).toHaveLength(330);
  });

  it("serve sequences that join and leave, greedy ones beside drawn ones, and stop at a token", async () => {
    const model = new Transformer(base);
    const params = model.init(5);
    const requests: [number[], SequenceOptions][] = [
      [[1, 2, 3], { maxTokens: 40, temperature: 0 }],
      [[4], { maxTokens: 25, temperature: 0 }],
      [[5, 6, 7, 8, 9], { maxTokens: 60, temperature: 0.8, seed: 2 }],
      [[1, 2, 3, 4], { maxTokens: 33, temperature: 0, stopTokens: [11] }],
    ];
    const write = async (captureStep: boolean) => {
      await using batch = new BatchGenerator(model, params, { maxSequences: 3, captureStep, keptSequences: 2 });
      return await Promise.all(requests.map(([prompt, options]) => all(batch.generate(prompt, options))));
    };
    const [captured, plain] = [await write(true), await write(false)];
    for (const [i, tokens] of captured.entries()) expectSame(tokens, plain[i]!);
  });

  it("tell of scores that aren't numbers, whatever the tokens are drawn by", async () => {
    for (const way of [{ temperature: 0 }, { temperature: 0.8 }, { temperature: 0.8, topP: 0.9 }]) {
      const model = new Transformer(base);
      const params = model.init(5);
      await using batch = new BatchGenerator(model, params, { readAhead: 1 });
      const tokens = batch.generate([1, 2, 3], { maxTokens: 60, ...way });
      for (let i = 0; i < 12; i++) await tokens.next();
      const [norm] = Object.entries(params).find(([name]) => /final|norm/i.test(name))!;
      copyInto(params[norm]!, full(params[norm]!.shape, Number.NaN));
      await expect(all(tokens)).rejects.toThrow("[sampling] the logits hold NaN");
    }
  });

  it("leave a cache of the caller's at the token before the last, and go on from it", async () => {
    const model = new Transformer(base);
    const params = model.init(6);
    const texts: number[][] = [];
    for (const captureStep of [true, false]) {
      using cache = new KvCache(model.config, { expected: 100 });
      const options = { maxTokens: 20, temperature: 0, cache, captureStep };
      const first = await all(generateTokens(model, params, [1, 2, 3], options));
      expect(cache.length).toBe(22);
      const ids = [1, 2, 3, ...first.map(({ id }) => id)];
      const more = await all(generateTokens(model, params, ids, options));
      cache.truncate(5);
      const again = await all(generateTokens(model, params, ids.slice(0, 7), options));
      texts.push([...ids, ...more.map(({ id }) => id), ...again.map(({ id }) => id)]);
    }
    expect(texts[0]).toEqual(texts[1]);
  });

  it.each([
    ["the likeliest tokens", { temperature: 0 }],
    ["drawn ones", { temperature: 0.9, seed: 3 }],
  ])("go on uncaptured where there is no memory to capture them, for %s", async (_name, way) => {
    const model = new Transformer(base);
    const params = model.init(8);
    const prompts = [
      [1, 2, 3],
      [4, 5],
    ];
    const write = async (captureStep: boolean) => {
      await using batch = new BatchGenerator(model, params, { captureStep });
      return await Promise.all(prompts.map((prompt) => all(batch.generate(prompt, { maxTokens: 30, ...way }))));
    };
    const plain = await write(false);
    await collectGarbage();
    const before = memory();
    const compile = vi.spyOn(engine(), "compileProgram").mockImplementationOnce(() => {
      throw new OutOfMemoryError("[captureStep] no memory is left");
    });
    const run = vi.spyOn(engine(), "runProgram");
    try {
      const found = await write(true);
      for (const [i, tokens] of found.entries()) expectSame(tokens, plain[i]!);
      expect(compile).toHaveBeenCalledTimes(1);
      expect(run).not.toHaveBeenCalled();
    } finally {
      vi.restoreAllMocks();
    }
    expect(memory().tensors).toBe(before.tensors);
    expect(memory().liveBytes).toBe(before.liveBytes);
  });

  it("fail their batch where a step itself has no memory", async () => {
    const model = new Transformer(base);
    const params = model.init(8);
    await using batch = new BatchGenerator(model, params);
    const tokens = batch.generate([1, 2, 3], { maxTokens: 60, temperature: 0 });
    for (let i = 0; i < 12; i++) await tokens.next();
    vi.spyOn(engine(), "runProgram").mockImplementationOnce(() => {
      throw new OutOfMemoryError("[captureStep] no memory is left");
    });
    try {
      await expect(all(tokens)).rejects.toThrow("no memory is left");
    } finally {
      vi.restoreAllMocks();
    }
    expect(await all(batch.generate([1, 2, 3], { maxTokens: 9 }))).toHaveLength(9);
  });

  it.each([0, 0.8])("free what they hold when a reader leaves early, at temperature %d", async (temperature) => {
    const model = new Transformer(base);
    const params = model.init(7);
    const run = async () => {
      let drawn = 0;
      for await (const _ of generateTokens(model, params, [1, 2], { maxTokens: 100, temperature })) {
        if (++drawn === 20) break;
      }
    };
    await run(); // tables
    await collectGarbage();
    const before = memory();
    await run();
    expect(memory().tensors).toBe(before.tensors);
    expect(memory().liveBytes).toBe(before.liveBytes);
  });

  it("need one token for each cache that has room, of a model that takes them", () => {
    const model = new Transformer(base);
    const params = model.init(9);
    using cache = new KvCache(model.config, { expected: 4 });
    const token = tensor(Int32Array.of(1), { shape: [1, 1] });
    const positions = tensor(Int32Array.of(0));
    const next = () => scope(() => model.lastLogits(params, token, { caches: [cache], positions }));
    expect(next).toThrow("a batch of one that has begun");
    model.lastLogits(params, tensor(Int32Array.of(1, 2, 3, 4), { shape: [1, 4] }), cache);
    expect(next).toThrow("has room for a position more");
    const wrong = () => model.lastLogits(params, token, { caches: [], positions });
    expect(wrong).toThrow("tokens must be [1, N] and positions [N] for 0 caches");
    const other = new Transformer({ ...base, attention: [{ kind: "simplicial", w1: 4, w2: 2 }] });
    expect(() => other.lastLogits(other.init(0), token, { caches: [cache], positions })).toThrow(
      "next tokens at positions of a tensor are for dot-product layers",
    );
  });
});
