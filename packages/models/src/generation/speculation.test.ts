import { memory, scope, tensor } from "@llmeff/tensor";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import type { TransformerConfig } from "../config.js";
import { Transformer } from "../transformer.js";
import { BatchGenerator } from "./batch-generator.js";
import { generateTokens } from "./generate.js";
import type { GeneratedToken, SequenceOptions } from "./options.js";
import { resolveSampling, tokenProbabilities } from "./sampling.js";
import { checkDrafted } from "./speculation.js";

const base: TransformerConfig = {
  vocabSize: 5,
  dModel: 16,
  numLayers: 2,
  numHeads: 2,
  maxSeqLen: 40,
  ffnDim: 24,
  initStd: 0.5,
};

async function all(tokens: AsyncIterable<GeneratedToken>): Promise<GeneratedToken[]> {
  const read: GeneratedToken[] = [];
  for await (const token of tokens) read.push(token);
  return read;
}

const idsOf = (tokens: readonly GeneratedToken[]) => tokens.map(({ id }) => id);

/**
 * Pearson's statistic of counts under probabilities, and a bound that it exceeds with probability 1e-4: Wilson and Hilferty's approximation of the
 * chi-square distribution.
 */
function chiSquare(counts: readonly number[], probabilities: readonly number[]): { statistic: number; bound: number } {
  const n = counts.reduce((a, b) => a + b, 0);
  const statistic = counts.reduce((sum, count, i) => {
    const expected = n * probabilities[i]!;
    return expected === 0 ? sum : sum + (count - expected) ** 2 / expected;
  }, 0);
  const degrees = probabilities.filter((p) => p > 0).length - 1;
  const z = 3.719; // of the normal distribution at 1 − 1e-4
  return { statistic, bound: degrees * (1 - 2 / (9 * degrees) + z * Math.sqrt(2 / (9 * degrees))) ** 3 };
}

describe("checkDrafted", () => {
  it("keeps what the model holds as likely, and draws from the rest else", () => {
    // p = (1/2, 1/4, 1/4), q = (1/4, 3/4, 0): the second is kept with probability 1/3; max(p − q, 0) = (1/4, 0, 1/4).
    const [p, q] = [Float64Array.of(0.5, 0.25, 0.25), Float64Array.of(0.25, 0.75, 0)];
    expect(checkDrafted(p, q, 0, 0.999, 0)).toBe(0);
    expect(checkDrafted(p, q, 1, 0.333, 0)).toBe(1);
    expect(checkDrafted(p, q, 1, 0.334, 0.499)).toBe(0);
    expect(checkDrafted(p, q, 1, 0.334, 0.501)).toBe(2);
  });

  it("gives the distribution of the model, whatever the draft's", () => {
    // Over all drafts and, by their measure, all numbers: Σ_x q(x) min(1, p(x)/q(x)) [x = y] + P(none kept) · rest(y).
    const distribution = fc
      .array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 4, maxLength: 4 })
      .filter((weights) => weights.reduce((a, b) => a + b, 0) > 0.1)
      .map((weights) => {
        const total = weights.reduce((a, b) => a + b, 0);
        return Float64Array.from(weights, (w) => w / total);
      });
    fc.assert(
      fc.property(distribution, distribution, (p, q) => {
        const steps = 400;
        const found = new Float64Array(4);
        for (const [id, share] of q.entries()) {
          if (share === 0) continue;
          for (let i = 0; i < steps; i++) {
            // A low-discrepancy lattice over both numbers.
            const [keep, draw] = [(i + 0.5) / steps, (i * 0.6180339887498949) % 1];
            const chosen = checkDrafted(p, q, id, keep, draw);
            found[chosen] = found[chosen]! + share / steps;
          }
        }
        for (const [id, share] of p.entries()) expect(Math.abs(found[id]! - share)).toBeLessThan(0.03);
      }),
    );
  });
});

const variants: Record<string, Partial<TransformerConfig>> = {
  "dot attention": {},
  windows: { attention: [{ kind: "dot", window: 3 }, { kind: "dot" }] },
  "2-simplicial windows": { attention: [{ kind: "simplicial", w1: 5, w2: 2 }, { kind: "dot" }] },
  "learned positions": { positions: "learned" },
  experts: { experts: { numExperts: 4, topK: 2 } },
};

describe.each(Object.entries(variants))("drafts for a model with %s", (_name, variant) => {
  const model = new Transformer({ ...base, ...variant });
  const params = model.init(3);
  const small = new Transformer({
    ...base,
    numLayers: 1,
    dModel: 8,
    maxSeqLen: 30,
    attention: [{ kind: "dot", window: 6 }],
  });
  const drafts = { model: small, params: small.init(5) };
  afterAll(() => {
    model.dispose();
    small.dispose();
  });

  it.each([1, 2, 4, 7])("change no token at temperature 0, %i at a time", async (tokens) => {
    const options: SequenceOptions[] = [
      { maxTokens: 30, temperature: 0, topLogProbs: 1 },
      { maxTokens: 11, temperature: 0, repetitionPenalty: 1.3, frequencyPenalty: 0.2 },
      { maxTokens: 1, temperature: 0 },
      { maxTokens: 99, temperature: 0, stopTokens: [2], presencePenalty: 0.5 },
    ];
    const prompts = [[1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 1], [4], [0, 1], [3, 3]];
    using batch = new BatchGenerator(model, params, { draft: { ...drafts, tokens }, prefillChunk: 4 });
    const together = await Promise.all(options.map((each, i) => all(batch.generate(prompts[i]!, each))));
    for (const [i, each] of options.entries()) {
      const alone = await all(generateTokens(model, params, prompts[i]!, each));
      expect(idsOf(together[i]!), `sequence ${i}`).toEqual(idsOf(alone));
      for (const [t, { logProb }] of alone.entries())
        expect(Math.abs(together[i]![t]!.logProb - logProb)).toBeLessThan(2e-5);
    }
    const { drafted, accepted } = batch.drafts;
    expect(drafted).toBeGreaterThan(0);
    expect(accepted).toBeLessThanOrEqual(drafted);
  });

  it("write the same text for the same seed, whatever other sequences there are", async () => {
    const options = (seed: number) => ({ maxTokens: 20, seed, temperature: 0.8 });
    const write = async (seeds: readonly number[]) => {
      using batch = new BatchGenerator(model, params, { draft: drafts });
      return await Promise.all(
        seeds.map(async (seed) => idsOf(await all(batch.generate([1, seed % 5], options(seed))))),
      );
    };
    const together = await write([1, 2, 3, 4]);
    for (const [i, seed] of [1, 2, 3, 4].entries()) expect((await write([seed]))[0]).toEqual(together[i]);
  });
});

describe("drafts", () => {
  const model = new Transformer(base);
  const params = model.init(3);
  const small = new Transformer({ ...base, numLayers: 1, dModel: 8, initStd: 1.5 });
  const draft = { model: small, params: small.init(5), tokens: 3 };

  it("leave the distribution of texts as it is", async () => {
    const [runs, length] = [4000, 3];
    const sampling = { temperature: 0.9, topK: 4, repetitionPenalty: 1.2 };
    const prompt = [1, 2, 3];
    /** Of each text of three tokens, by the model alone: products of its probabilities. */
    const exact = new Map<string, number>();
    const seeds = Array.from({ length: runs }, (_, seed) => seed);
    const write = async (options: ConstructorParameters<typeof BatchGenerator>[2]) => {
      using batch = new BatchGenerator(model, params, { maxSequences: 64, ...options });
      const texts = await Promise.all(
        seeds.map(async (seed) => idsOf(await all(batch.generate(prompt, { maxTokens: length, seed, ...sampling })))),
      );
      return { texts, drafts: batch.drafts };
    };
    const walk = (drawn: readonly number[], probability: number): void => {
      if (drawn.length === length) {
        exact.set(drawn.join(), probability);
        return;
      }
      const ids = Int32Array.of(...prompt, ...drawn);
      const logits = scope(() => model.lastLogits(params, tensor(ids, { shape: [1, ids.length] })).dataSync());
      const counts = new Map<number, number>();
      for (const id of drawn) counts.set(id, (counts.get(id) ?? 0) + 1);
      const history = { prompt: new Set(prompt), drawn: counts };
      const p = tokenProbabilities(logits as Float32Array, resolveSampling(sampling), history);
      for (const [id, share] of p.entries()) if (share > 0) walk([...drawn, id], probability * share);
    };
    walk([], 1);
    const { texts, drafts } = await write({ draft });
    const counts = new Map([...exact.keys()].map((text) => [text, 0]));
    for (const text of texts) {
      expect(exact.has(text.join()), `${text} can't be drawn by the model`).toBe(true);
      counts.set(text.join(), counts.get(text.join())! + 1);
    }
    // Rare texts together, as the approximation wants some five of each.
    const rare = [...exact].filter(([, p]) => p * runs < 5).map(([text]) => text);
    const common = [...exact.keys()].filter((text) => !rare.includes(text));
    const sum = (of: ReadonlyMap<string, number>) => rare.reduce((total, text) => total + of.get(text)!, 0);
    const { statistic, bound } = chiSquare(
      [...common.map((text) => counts.get(text)!), sum(counts)],
      [...common.map((text) => exact.get(text)!), sum(exact)],
    );
    expect(statistic).toBeLessThan(bound);
    // The test would see a draft that is taken as it comes: some are rejected, and some kept.
    expect(drafts.accepted / drafts.drafted).toBeGreaterThan(0.2);
    expect(drafts.accepted / drafts.drafted).toBeLessThan(0.95);
  }, 120_000);

  it("are all right when the small model is the model itself", async () => {
    using batch = new BatchGenerator(model, params, { draft: { model, params, tokens: 4 } });
    await Promise.all([0, 1, 2].map((seed) => all(batch.generate([1, 2], { maxTokens: 21, seed, temperature: 0 }))));
    const { drafted, accepted } = batch.drafts;
    expect(accepted).toBe(drafted);
    // The first token comes with the prompt, then five come in each step: 21 are one and 4 steps.
    expect(drafted).toBe(3 * 16);
  });

  it("end where the small model's positions end", async () => {
    const short = new Transformer({ ...base, maxSeqLen: 8 });
    using batch = new BatchGenerator(model, params, { draft: { model: short, params: short.init(1) } });
    const options = { maxTokens: 30, temperature: 0 };
    const [from, alone] = [batch.generate([1, 2, 3], options), generateTokens(model, params, [1, 2, 3], options)];
    expect(idsOf(await all(from))).toEqual(idsOf(await all(alone)));
    expect(batch.drafts.drafted).toBeGreaterThan(0);
    const long = [1, 2, 3, 4, 0, 1, 2, 3, 4, 0];
    const [second, same] = [batch.generate(long, options), generateTokens(model, params, long, options)];
    expect(idsOf(await all(second))).toEqual(idsOf(await all(same)));
    short.dispose();
  });

  it("leave no memory behind when their sequence is left in the middle", async () => {
    const round = async () => {
      await using batch = new BatchGenerator(model, params, { draft });
      const left = batch.generate([1, 2, 3], { maxTokens: 30 });
      await left.next();
      await left.return(undefined);
      const controller = new AbortController();
      const aborted = all(batch.generate([1], { maxTokens: 30, signal: controller.signal })).catch(() => undefined);
      const other = all(batch.generate([2], { maxTokens: 9 }));
      controller.abort();
      await aborted;
      expect(await other).toHaveLength(9);
    };
    await round();
    const before = memory().tensors;
    await round();
    expect(memory().tensors).toBe(before);
  });

  it("go on when another sequence is left at any moment of a step", async () => {
    for (let moment = 0; moment < 60; moment++) {
      await using batch = new BatchGenerator(model, params, { draft });
      const controller = new AbortController();
      const aborted = all(batch.generate([1], { maxTokens: 6, signal: controller.signal })).catch(() => undefined);
      const other = all(batch.generate([2], { maxTokens: 6 }));
      for (let i = 0; i < moment; i++) await undefined;
      controller.abort();
      await aborted;
      expect(await other, `left after ${moment} turns`).toHaveLength(6);
    }
  });

  it("must be of a model that knows the same tokens, and not checked by one whose frequencies grow", () => {
    const other = new Transformer({ ...base, vocabSize: 4 });
    using batch = new BatchGenerator(model, params, { draft: { model: other, params: other.init(1) } });
    expect(() => batch.generate([1], { maxTokens: 1 })).toThrow(/draft model has 4 tokens and 5 may be drawn/);
    expect(() => batch.generate([1], { maxTokens: 1, vocabSize: 4 })).not.toThrow();
    expect(() => new BatchGenerator(model, params, { draft: { ...draft, tokens: 0 } })).toThrow(
      /draft\.tokens must be a positive integer; received 0/,
    );
    const growing = new Transformer({ ...base, ropeScaling: { type: "dynamic", factor: 2, originalLength: 16 } });
    expect(() => new BatchGenerator(growing, params, { draft })).toThrow(/dynamic rotary scaling/);
  });
});
