import { memory, scope, type Tensor, tensor } from "@llmeff/tensor";
import { afterAll, describe, expect, it, vi } from "vitest";
import { collectGarbage } from "../../../../test/garbage.js";
import { smallConfig } from "../../test/small-config.js";
import { KvCache } from "../cache.js";
import type { TransformerConfig } from "../config.js";
import { Transformer } from "../transformer.js";
import { BatchGenerator } from "./batch-generator.js";
import { generateTokens } from "./generate.js";
import type { GeneratedToken, SequenceOptions } from "./options.js";

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
  const model = new Transformer({ ...smallConfig, ...variant });
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

describe.each(Object.entries(variants))("the prompt's own log-probabilities with %s", (_name, variant) => {
  const model = new Transformer({ ...smallConfig, ...variant });
  const params = model.init(3);
  const withState = model.config.experts?.routerBias ? { state: model.initState() } : {};
  const V = model.config.vocabSize;
  afterAll(() => model.dispose());

  /** Of a pass over the whole prompt. */
  const logProbs = (prompt: readonly number[]) => {
    using cache = new KvCache(model.config);
    const rows = scope(() => {
      const tokens = tensor(Int32Array.from(prompt), { shape: [1, prompt.length] });
      return [...model.logits(params, tokens, cache, withState).dataSync()] as number[];
    });
    return prompt.map((_, t) => {
      const z = rows.slice(t * V, (t + 1) * V);
      const total = Math.log(z.reduce((sum, x) => sum + Math.exp(x), 0));
      return z.map((x) => x - total);
    });
  };

  it("come before what is drawn, and change nothing about it, whatever the chunks", async () => {
    const options = (i: number): SequenceOptions => ({ maxTokens: i % 3, seed: i, temperature: 0.9, topLogProbs: i });
    const expected = prompts.map(logProbs);
    for (const settings of [{}, { prefillChunk: 3 }, { prefillChunk: 1, maxSequences: 2 }, { readAhead: 1 }]) {
      await using batch = new BatchGenerator(model, params, { ...settings, ...withState });
      const [scored, plain] = await Promise.all(
        [true, false].map((promptLogProbs) =>
          Promise.all(prompts.map((prompt, i) => all(batch.generate(prompt, { ...options(i), promptLogProbs })))),
        ),
      );
      for (const [i, prompt] of prompts.entries()) {
        const drawn = plain![i]!;
        expect(idsOf(scored![i]!)).toEqual([...prompt.slice(1), ...idsOf(drawn)]);
        expect(drawn).toHaveLength(i % 3);
        for (const [t, { id, logProb, top }] of scored![i]!.slice(0, prompt.length - 1).entries()) {
          const row = expected[i]![t]!;
          expect(Math.abs(logProb - row[id]!)).toBeLessThan(2e-5);
          const best = [...row.keys()].sort((a, b) => row[b]! - row[a]!).slice(0, i);
          expect(top.map((token) => token.id)).toEqual(best);
          for (const token of top) expect(Math.abs(token.logProb - row[token.id]!)).toBeLessThan(2e-5);
          if (best[0] === id) expect(logProb).toBe(top[0]!.logProb);
        }
      }
      expect([batch.active, batch.waiting]).toEqual([0, 0]);
    }
  });
});

describe.each([
  ["dot attention", {}],
  ["windows", { attention: [{ kind: "dot", window: 5 }, { kind: "dot" }] }],
  ["2-simplicial windows", { attention: [{ kind: "simplicial", w1: 6, w2: 3 }, { kind: "dot" }] }],
] satisfies [string, Partial<TransformerConfig>][])("prompts that begin alike, with %s", (_name, variant) => {
  const model = new Transformer({ ...smallConfig, ...variant });
  const params = model.init(3);
  const long = prompts[1]!;
  afterAll(() => model.dispose());

  const alone = async (prompt: number[], options: SequenceOptions) =>
    idsOf(await all(generateTokens(model, params, prompt, options)));

  it("are read once for several samples", async () => {
    for (const prefillChunk of [256, 4]) {
      using batch = new BatchGenerator(model, params, { prefillChunk });
      const seeds = [0, 1, 2, 3];
      const options = (seed: number) => ({ maxTokens: 10, seed });
      const texts = await Promise.all(seeds.map(async (seed) => idsOf(await all(batch.generate(long, options(seed))))));
      for (const seed of seeds) expect(texts[seed]).toEqual(await alone(long, options(seed)));
      // All but the last token, after which the scores are wanted.
      expect(batch.prompts).toEqual({ read: long.length + 3, reused: 3 * (long.length - 1) });
    }
  });

  it("share as much as is the same with a sequence that is being written", async () => {
    using batch = new BatchGenerator(model, params, { readAhead: 30 });
    const first = batch.generate([1, 2, 3], { maxTokens: 8, temperature: 0 });
    const begun: GeneratedToken[] = [];
    for (let i = 0; i < 8; i++) begun.push((await first.next()).value as GeneratedToken);
    const options = { maxTokens: 6, temperature: 0 };
    const prompt = [1, 2, 3, ...idsOf(begun).slice(0, 2), 9, 9];
    expect(idsOf(await all(batch.generate(prompt, options)))).toEqual(await alone(prompt, options));
  });

  it("find the caches of sequences that have ended, of the latest as many as are kept", async () => {
    const before = memory().tensors;
    {
      using batch = new BatchGenerator(model, params, { keptSequences: 2 });
      const options = { maxTokens: 4, temperature: 0 };
      const turn = async (prompt: number[]) => {
        const written = idsOf(await all(batch.generate(prompt, options)));
        expect(written).toEqual(await alone(prompt, options));
        return [...prompt, ...written];
      };
      const other = await turn([7, 7, 7, 7]);
      const conversation = await turn(long);
      const { reused } = batch.prompts;
      const longer = await turn([...conversation, 3, 3]);
      expect(batch.prompts.reused - reused).toBe(conversation.length - 1);
      // The longer conversation has taken the place of the shorter; the other one is still there.
      await turn([...other, 5]);
      expect(batch.prompts.reused - reused).toBe(conversation.length - 1 + other.length - 1);
      await turn([0, 1]);
      await turn([4, 3]);
      const last = batch.prompts.reused;
      await turn(longer);
      expect(batch.prompts.reused).toBe(last);
    }
    expect(memory().tensors).toBe(before);
  });

  it("are read by themselves where their cache fails or is left", async () => {
    using batch = new BatchGenerator(model, params, { prefillChunk: 3 });
    const first = batch.generate(long, { maxTokens: 5 });
    const second = all(batch.generate(long, { maxTokens: 5, seed: 1 }));
    await first.return(undefined);
    expect(idsOf(await second)).toEqual(await alone(long, { maxTokens: 5, seed: 1 }));
  });

  it("share the draft model's cache too", async () => {
    const draft = { model, params, tokens: 3 };
    using batch = new BatchGenerator(model, params, { draft, keptSequences: 1 });
    const options = { maxTokens: 9, temperature: 0 };
    for (const prompt of [long, long, [...long, 4, 4]])
      expect(idsOf(await all(batch.generate(prompt, options)))).toEqual(await alone(prompt, options));
    const { drafted, accepted } = batch.drafts;
    expect(accepted).toBe(drafted);
  });
});

describe("a prompt whose beginning sees itself (prefix language model)", () => {
  const model = new Transformer({ ...smallConfig, attention: [{ kind: "dot", window: 9 }, { kind: "dot" }] });
  const params = model.init(3);
  const prompt = prompts[1]!.slice(0, 12);

  it("is scored as in one pass, whatever the chunks and the other sequences", async () => {
    for (const prefillChunk of [256, 3]) {
      using batch = new BatchGenerator(model, params, { prefillChunk });
      const options = { maxTokens: 5, temperature: 0 };
      const reading = [all(batch.generate(prompt, { ...options, prefix: 8 })), all(batch.generate(prompt, options))];
      const [seeing, causal] = (await Promise.all(reading)) as [GeneratedToken[], GeneratedToken[]];
      const first = (prefix?: number) => {
        const z = scope(() => {
          const tokens = tensor(Int32Array.from(prompt), { shape: [1, prompt.length] });
          const scores = model.lastLogits(params, tokens, undefined, prefix === undefined ? {} : { prefix });
          return [...(scores.dataSync() as Float32Array)];
        });
        return Math.max(...z) - Math.log(z.reduce((sum, x) => sum + Math.exp(x), 0));
      };
      expect(seeing[0]!.logProb).toBeCloseTo(first(8), 5);
      expect(causal[0]!.logProb).toBeCloseTo(first(), 5);
      expect(Math.abs(first() - first(8))).toBeGreaterThan(1e-3);
      const options8 = { ...options, prefix: 8 };
      expect(idsOf(seeing)).toEqual(idsOf(await all(generateTokens(model, params, prompt, options8))));
    }
  });

  it("is refused by a model that has no such mask, and in parts", () => {
    const simplicial = new Transformer({ ...smallConfig, attention: [{ kind: "simplicial" }] });
    using batch = new BatchGenerator(simplicial, params);
    expect(() => batch.generate([1, 2], { maxTokens: 1, prefix: 2 })).toThrow(/this model has 2-simplicial ones/);
    using caches = new KvCache(model.config);
    const tokens = tensor(Int32Array.of(1, 2), { shape: [1, 2] });
    const pass = (of: Transformer, options: { length: number; prefix?: number; scored?: number }) =>
      scope(() => void of.lastLogits(params, tokens, [{ cache: caches, ...options }]));
    expect(() => pass(simplicial, { length: 2, prefix: 2 })).toThrow(/masks of dot-product layers/);
    expect(() => pass(model, { length: 2, prefix: 3 })).toThrow(
      /prefix of 3 positions must come whole in the first pass/,
    );
    expect(() => pass(model, { length: 2, prefix: -1 })).toThrow(/a prefix must be a non-negative integer/);
    expect(() => pass(model, { length: 3 })).toThrow(
      /with T the sum of their positive lengths; received \[1, 2\] and lengths 3/,
    );
    expect(() => pass(model, { length: 2, scored: 3 })).toThrow(/0\.\.2 can be scored; received 3/);
    const both = [1, 1].map((length) => ({ cache: caches, length }));
    expect(() => model.lastLogits(params, tokens, both)).toThrow(/the same cache is given for two sequences/);
    expect(caches.length).toBe(0);
  });
});

describe("BatchGenerator", () => {
  const model = new Transformer(smallConfig);
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

  it("writes on while a long prompt is read in chunks", async () => {
    using batch = batchOf({ prefillChunk: 2 });
    const written: string[] = [];
    const read = async (name: string, prompt: number[], maxTokens: number) => {
      for await (const _ of batch.generate(prompt, { maxTokens })) written.push(name);
    };
    await Promise.all([read("short", [1], 30), read("long", new Array(40).fill(2), 1)]);
    // Twenty steps read the prompt, in each of which the other sequence gets its token.
    expect(written.indexOf("long")).toBeGreaterThanOrEqual(19);
    expect(written.indexOf("long")).toBeLessThan(30);
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

  it.each([true, false])(
    "frees them however long after a token its reader leaves (captureStep %j)",
    async (captureStep) => {
      const leave = async (ticks: number) => {
        await using batch = new BatchGenerator(model, params, { captureStep, readAhead: 8 });
        let drawn = 0;
        for await (const _ of batch.generate([1, 2, 3], { maxTokens: 30, temperature: 0 })) {
          if (++drawn < 3) continue;
          for (let i = 0; i < ticks; i++) await undefined;
          break;
        }
      };
      await leave(0); // makes what is the model's
      await collectGarbage();
      const { tensors, liveBytes } = memory();
      for (let ticks = 0; ticks < 40; ticks++) {
        await leave(ticks);
        expect({ ticks, tensors: memory().tensors, liveBytes: memory().liveBytes }).toEqual({
          ticks,
          tensors,
          liveBytes,
        });
      }
    },
  );

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

  it("fails only the sequence that there is no memory to begin, and goes on", async () => {
    using batch = batchOf();
    const prompt = [1, 2, 3, 4];
    const first = batch.generate(prompt, { maxTokens: 20 });
    await first.next();
    const clone = vi.spyOn(KvCache.prototype, "clone").mockImplementationOnce(() => {
      throw new Error("out of memory");
    });
    try {
      await expect(all(batch.generate(prompt, { maxTokens: 2 }))).rejects.toThrow("out of memory");
    } finally {
      clone.mockRestore();
    }
    expect(await all(batch.generate(prompt, { maxTokens: 2 }))).toHaveLength(2);
    expect(await all(first)).toHaveLength(19);
  });

  it("scores all of a prompt that begins like another, and lends it", async () => {
    using batch = batchOf({ keptSequences: 1 });
    const prompt = [1, 2, 3, 4, 5];
    await all(batch.generate(prompt, { maxTokens: 1 }));
    const scored = await all(batch.generate(prompt, { maxTokens: 0, promptLogProbs: true }));
    expect(idsOf(scored)).toEqual(prompt.slice(1));
    expect(batch.prompts).toEqual({ read: 10, reused: 0 });
    await all(batch.generate(prompt, { maxTokens: 1 }));
    expect(batch.prompts).toEqual({ read: 11, reused: 4 });
    expect(await all(batch.generate([3], { maxTokens: 0, promptLogProbs: true }))).toEqual([]);
  });

  it("writes others while a prompt is scored, waits for its reader, and frees what is left", async () => {
    using batch = batchOf({ prefillChunk: 2, readAhead: 3 });
    const scored = batch.generate(new Array(40).fill(2), { maxTokens: 1, promptLogProbs: true });
    expect((await scored.next()).value).toMatchObject({ id: 2 });
    expect(await all(batch.generate([1], { maxTokens: 20 }))).toHaveLength(20);
    // One chunk was read, and the next ones until three tokens wait.
    expect(batch.active).toBe(1);
    expect(await all(scored)).toHaveLength(39);
    const left = batch.generate(new Array(40).fill(3), { maxTokens: 1, promptLogProbs: true });
    await left.next();
    await left.return(undefined);
    expect(batch.active).toBe(0);
  });

  it("fails only the sequence whose prompt's scores aren't numbers", async () => {
    const table = params["model.embed_tokens.weight"]!.dataSync().slice() as Float32Array;
    table.fill(Number.NaN, 7 * 16, 8 * 16);
    using broken = tensor(table, { shape: [11, 16] });
    using batch = new BatchGenerator(model, { ...params, "model.embed_tokens.weight": broken });
    const good = all(batch.generate([1, 2], { maxTokens: 1 }));
    const bad = all(batch.generate([1, 7, 2], { maxTokens: 0, promptLogProbs: true }));
    await expect(bad).rejects.toThrow(/logits hold NaN/);
    expect(await good).toHaveLength(1);
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
    [{ keptSequences: -1 }, /keptSequences must be a non-negative integer; received -1/],
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
    [{ maxTokens: 1, promptLogProbs: true, prefix: 2 }, [1, 2, 3], /promptLogProbs of a prompt with a prefix/],
    [{ maxTokens: 1, promptLogProbs: true, vocabSize: 5 }, [1, 5], /ids below vocabSize 5; prompt\[1\] is 5/],
    [{ maxTokens: 1, topP: 0 }, [1], /topP must be in \(0, 1\]; received 0/],
  ])("refuses %o with prompt %o at the call, and holds nothing for it", (options, prompt, message) => {
    using batch = batchOf();
    expect(() => batch.generate(prompt, options)).toThrow(message);
    expect(batch.waiting).toBe(0);
  });
});
