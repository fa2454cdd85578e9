import { memory, scope, type Tensor, tensor } from "@llmeff/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { collectGarbage } from "../../../../test/garbage.js";
import { KvCache } from "../cache.js";
import type { TransformerConfig } from "../config.js";
import { Transformer } from "../transformer.js";
import { BatchGenerator } from "./batch-generator.js";
import { generateTokens } from "./generate.js";
import type { GeneratedToken, SequenceOptions } from "./options.js";

const base: TransformerConfig = {
  vocabSize: 11,
  dModel: 16,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
  maxSeqLen: 48,
  ffnDim: 24,
  initStd: 0.4,
};

const scaling = { factor: 2, originalLength: 16 };

const variants: Record<string, Partial<TransformerConfig>> = {
  "dot attention": {},
  windows: { attention: [{ kind: "dot", window: 5 }, { kind: "dot" }] },
  "2-simplicial windows": { attention: [{ kind: "simplicial", w1: 6, w2: 3 }, { kind: "dot" }] },
  "2-simplicial rope": { attention: [{ kind: "simplicial", rope: true }, { kind: "dot" }] },
  "dynamic rotary scaling": { ropeScaling: { type: "dynamic", ...scaling } },
  "yarn rotary scaling": { ropeScaling: { type: "yarn", ...scaling } },
  "learned positions": { positions: "learned" },
  experts: { experts: { numExperts: 4, topK: 2, capacityFactor: 1 } },
  "routers with biases": { experts: { numExperts: 4, topK: 2, score: "sigmoid", routerBias: true } },
  "a parallel block": { block: "parallel", qkNorm: true, attentionSoftcap: 5, finalSoftcap: 4 },
};

const prompts = [[1], [2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [5, 5, 1], [10, 9, 8, 7, 6, 5, 4]];

async function all(tokens: AsyncIterable<GeneratedToken>): Promise<GeneratedToken[]> {
  const read: GeneratedToken[] = [];
  for await (const token of tokens) read.push(token);
  return read;
}

const idsOf = (tokens: readonly GeneratedToken[]) => tokens.map(({ id }) => id);

describe.each(Object.entries(variants))("BatchGenerator with %s", (_name, variant) => {
  const model = new Transformer({ ...base, ...variant });
  const params = model.init(3);
  const state = model.config.experts?.routerBias
    ? Object.fromEntries(
        Object.keys(model.initState()).map((name) => [name, tensor(Float32Array.of(0.3, -0.2, 0.1, 0))]),
      )
    : undefined;
  const withState = state === undefined ? {} : { state };
  afterAll(() => model.dispose());

  it("writes of every sequence what it writes of each alone, whatever the chunks of prompts and the room", async () => {
    const options = (i: number): SequenceOptions => ({ maxTokens: 12 + i, seed: i, temperature: 0.9, topLogProbs: 3 });
    const alone = await Promise.all(
      prompts.map((prompt, i) => all(generateTokens(model, params, prompt, { ...options(i), ...withState }))),
    );
    for (const settings of [{}, { prefillChunk: 3 }, { prefillChunk: 1, maxSequences: 2 }, { readAhead: 1 }]) {
      using batch = new BatchGenerator(model, params, { ...settings, ...withState });
      const together = await Promise.all(prompts.map((prompt, i) => all(batch.generate(prompt, options(i)))));
      for (const [i, tokens] of together.entries()) {
        expect(idsOf(tokens), `sequence ${i}`).toEqual(idsOf(alone[i]!));
        for (const [t, { logProb, top }] of tokens.entries()) {
          // Float32 sums of another order: those of products over rows, and of the softmax.
          expect(Math.abs(logProb - alone[i]![t]!.logProb)).toBeLessThan(2e-5);
          expect(top.map(({ id }) => id)).toEqual(alone[i]![t]!.top.map(({ id }) => id));
        }
      }
      expect([batch.active, batch.waiting]).toEqual([0, 0]);
    }
  });

  it("gives the log-probability of the scores of the whole sequence", async () => {
    const prompt = prompts[3]!;
    const tokens = await all(generateTokens(model, params, prompt, { maxTokens: 6, topLogProbs: 2, ...withState }));
    const ids = Int32Array.from([...prompt, ...idsOf(tokens)]);
    // A cache of its own, as the frequencies of a growing sequence may grow with it.
    using cache = new KvCache(model.config);
    for (const [t, { id, logProb, top }] of tokens.entries()) {
      const from = cache.length;
      const next = ids.subarray(from, prompt.length + t);
      const z = scope(() => {
        const row: Tensor = tensor(next, { shape: [1, next.length] });
        return [...model.lastLogits(params, row, cache, withState).dataSync()] as number[];
      });
      const total = Math.log(z.reduce((sum, x) => sum + Math.exp(x), 0));
      expect(logProb).toBeCloseTo(z[id]! - total, 5);
      const best = [...z.keys()].sort((a, b) => z[b]! - z[a]!).slice(0, 2);
      expect(top.map((token) => token.id)).toEqual(best);
      expect(top[1]!.logProb).toBeCloseTo(z[best[1]!]! - total, 5);
    }
  });
});

describe("BatchGenerator", () => {
  const model = new Transformer(base);
  const params = model.init(1);
  const batchOf = (options = {}) => new BatchGenerator(model, params, options);

  it("lets sequences in by the order of the calls as others end", async () => {
    using batch = batchOf({ maxSequences: 2 });
    const ended: number[] = [];
    const reading = [3, 9, 3, 3].map(async (maxTokens, i) => {
      await all(batch.generate([i], { maxTokens }));
      ended.push(i);
    });
    expect(batch.waiting).toBe(4);
    await Promise.all(reading);
    expect(ended).toEqual([0, 2, 1, 3]);
  });

  it("goes on with the others while one isn't read", async () => {
    using batch = batchOf({ readAhead: 2 });
    const idle = batch.generate([1], { maxTokens: 20 });
    expect(await all(batch.generate([2], { maxTokens: 20 }))).toHaveLength(20);
    expect(batch.active).toBe(1);
    expect(await all(idle)).toHaveLength(20);
  });

  it("frees the rows of a sequence that is left, before, while and after it is read", async () => {
    using batch = batchOf({ maxSequences: 1 });
    const [first, second, third] = [1, 2, 3].map((id) => batch.generate([id], { maxTokens: 40 }));
    await first!.next();
    expect([batch.active, batch.waiting]).toEqual([1, 2]);
    await second!.return(undefined); // never read
    expect([batch.active, batch.waiting]).toEqual([1, 1]);
    const pending = first!.next().then(() => first!.next());
    await first!.return(undefined);
    await pending;
    for await (const _ of third!) break;
    expect([batch.active, batch.waiting]).toEqual([0, 0]);
    expect(await first!.next()).toEqual({ value: undefined, done: true });
  });

  it("tells an aborted reader why, and leaves the others alone", async () => {
    using batch = batchOf();
    const controller = new AbortController();
    const reason = new Error("enough");
    const other = all(batch.generate([4], { maxTokens: 10 }));
    const aborted = batch.generate([3], { maxTokens: 40, signal: controller.signal });
    await aborted.next();
    controller.abort(reason);
    await expect(all(aborted)).rejects.toBe(reason);
    expect(await other).toHaveLength(10);
    const late = batch.generate([3], { maxTokens: 40, signal: controller.signal });
    await expect(late.next()).rejects.toBe(reason);
    expect([batch.active, batch.waiting]).toEqual([0, 0]);
  });

  it("ends sequences with an error when it is disposed, and takes no more", async () => {
    const batch = batchOf();
    const reading = all(batch.generate([1], { maxTokens: 40 }));
    batch.dispose();
    await expect(reading).rejects.toThrow(/disposed while this sequence was being written/);
    expect(() => batch.generate([1], { maxTokens: 1 })).toThrow(/was disposed/);
  });

  it("keeps no memory of sequences that ended", async () => {
    const round = async () => {
      await using batch = batchOf({ prefillChunk: 4 });
      const left = batch.generate([1, 2, 3, 4, 5, 6], { maxTokens: 40 });
      await Promise.all(prompts.map((prompt) => all(batch.generate(prompt, { maxTokens: 5 }))));
      await left.return(undefined);
    };
    await round();
    await collectGarbage();
    const before = memory().tensors;
    await round();
    expect(memory().tensors).toBe(before);
  });

  it("fails only the sequence whose scores aren't numbers", async () => {
    const table = params["model.embed_tokens.weight"]!.dataSync().slice() as Float32Array;
    table.fill(Number.NaN, 7 * 16, 8 * 16); // token 7
    using broken = tensor(table, { shape: [11, 16] });
    using batch = new BatchGenerator(model, { ...params, "model.embed_tokens.weight": broken });
    const good = batch.generate([1, 2], { maxTokens: 1 });
    const bad = batch.generate([1, 7], { maxTokens: 1 });
    const results = await Promise.allSettled([all(good), all(bad)]);
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
    await expect(bad.next()).resolves.toEqual({ value: undefined, done: true });
  });

  it("tells all sequences of a step that failed, and goes on", async () => {
    const { "model.layers.1.self_attn.o_proj.weight": gone, ...incomplete } = params;
    const given: Record<string, Tensor> = incomplete;
    using batch = new BatchGenerator(model, given);
    await expect(all(batch.generate([1], { maxTokens: 2 }))).rejects.toThrow(/lack "model\.layers\.1/);
    given["model.layers.1.self_attn.o_proj.weight"] = gone!;
    expect(await all(batch.generate([1], { maxTokens: 2 }))).toHaveLength(2);
  });

  it.each([
    [{ maxSequences: 0 }, /maxSequences must be a positive integer; received 0/],
    [{ prefillChunk: 1.5 }, /prefillChunk must be a positive integer; received 1\.5/],
    [{ readAhead: 0 }, /readAhead must be a positive integer; received 0/],
  ])("refuses %o", (options, message) => {
    expect(() => batchOf(options)).toThrow(message);
  });

  it.each([
    [{ maxTokens: -1 }, [1], /maxTokens must be a non-negative integer; received -1/],
    [{ maxTokens: 1, topLogProbs: 1.5 }, [1], /topLogProbs must be a non-negative integer; received 1\.5/],
    [{ maxTokens: 1, prefix: 2 }, [1], /prefix of 2 is longer than the prompt of 1/],
    [{ maxTokens: 1 }, [1, 11], /token id 11 at prompt\[1\] is outside the vocabulary of 11/],
    [{ maxTokens: 1 }, [-1], /token id -1 at prompt\[0\]/],
    [{ maxTokens: 1 }, [], /at least one token; received none/],
    [{ maxTokens: 1, topP: 0 }, [1], /topP must be in \(0, 1\]; received 0/],
  ])("refuses %o with prompt %o at the call, and holds nothing for it", (options, prompt, message) => {
    using batch = batchOf();
    expect(() => batch.generate(prompt, options)).toThrow(message);
    expect(batch.waiting).toBe(0);
  });
});
