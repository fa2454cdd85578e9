import { byteTokenizer } from "@llmeff/data";
import { Transformer } from "@llmeff/models";
import { memory, scope, tensor } from "@llmeff/tensor";
import { expect, it } from "vitest";
import { plainSample } from "../test/samples.js";
import { localModel } from "./local.js";
import type { EvalModel } from "./models/eval-model.js";
import { nllPosition } from "./models/nll-position.js";
import { oracleModel } from "./models/stand-ins.js";

const transformer = new Transformer({
  vocabSize: 256,
  dModel: 16,
  numLayers: 2,
  numHeads: 2,
  maxSeqLen: 128,
  initStd: 0.5,
  attention: [{ kind: "dot", window: 8 }, { kind: "dot" }],
});
const params = transformer.init(3);
const model = localModel(transformer, params, byteTokenizer(), { id: "tiny", prefillChunk: 16 });

it("gives the log-probabilities of the whole forward pass, in chunks of any size", async () => {
  const ids = Int32Array.from({ length: 50 }, (_, i) => (i * 37) % 256);
  const logits = scope(() => transformer.logits(params, tensor(ids, { shape: [1, 50] })).dataSync());
  const expected = Array.from({ length: 50 }, (_, i) => {
    if (i === 0) return Number.NaN;
    const row = Array.from(logits.subarray((i - 1) * 256, i * 256));
    const most = Math.max(...row);
    return row[ids[i]!]! - most - Math.log(row.reduce((sum, z) => sum + Math.exp(z - most), 0));
  });
  const before = memory().tensors;
  for (const options of [{}, { chunk: 7 }, { chunk: 1 }, { from: 20, chunk: 16 }, { from: 49 }]) {
    const found = await model.tokenLogProbs!(ids, options);
    const wanted = expected.slice(options.from ?? 0);
    expect(found).toHaveLength(wanted.length);
    // Positions before `from` are not wanted; float32 sums of 256 terms agree to 1e-5.
    for (const [i, value] of wanted.entries()) {
      if (Number.isNaN(value)) expect(found[i]).toBeNaN();
      else expect(found[i]).toBeCloseTo(value, 4);
    }
  }
  expect(memory().tensors).toBe(before);
  await expect(model.tokenLogProbs!(ids, { chunk: 0 })).rejects.toThrow(/chunk/);
});

it("answers messages as text, ends at a stop text, and counts its tokens", async () => {
  const { messages } = plainSample(1);
  const free = await model.generate({ messages, maxTokens: 20, temperature: 0 });
  expect(free.finish).toBe("length");
  const promptTokens = Buffer.byteLength(messages[0]!.content);
  expect(free.usage).toEqual({ promptTokens, completionTokens: 20, cachedTokens: 0 });
  const again = await Promise.all([1, 2].map(() => model.generate({ messages, maxTokens: 20, temperature: 0 })));
  expect(again.map(({ text }) => text)).toEqual([free.text, free.text]);
  const stop = free.text.slice(3, 5);
  const stopped = await model.generate({ messages, maxTokens: 20, temperature: 0, stop: [stop] });
  expect(stopped).toMatchObject({ finish: "stop", text: free.text.slice(0, free.text.indexOf(stop)) });
});

it("gives NLL against position: the mean over documents of the mean over what is before", async () => {
  const text = "The kettle is warm, and the road is long. ".repeat(4).slice(0, 128);
  const { points, fit, bins } = await nllPosition(model, [text, text.slice(0, 40)], { positions: [1, 8, 32, 127] });
  expect(points.map(({ documents }) => documents)).toEqual([2, 2, 2, 1]);
  const ids = Int32Array.from(Buffer.from(text));
  const losses = Array.from(await model.tokenLogProbs!(ids))
    .slice(1)
    .map((value) => -value);
  const cumulative = (n: number) => losses.slice(0, n).reduce((sum, loss) => sum + loss, 0) / n;
  // The shorter document is the beginning of the longer one, so its means are the same.
  for (const { position, mean } of points) expect(mean).toBeCloseTo(cumulative(position), 5);
  expect(bins.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(127 + 39);
  expect(fit).not.toBeNull();
  await expect(nllPosition(oracleModel(), [text])).rejects.toThrow(/no log-probabilities/);
});

it("reads the first tokens of documents that are longer than its context, only if it is told to", async () => {
  const text = "The kettle is warm, and the road is long. ".repeat(9);
  await expect(nllPosition(model, ["short", text])).rejects.toThrow(
    /document 1 has 378 tokens, and tiny takes 128. Give maxTokens/,
  );
  const told: number[] = [];
  const cut = await nllPosition(model, [text, "short"], {
    ...{ maxTokens: 64, positions: [4, 63], chunk: 10 },
    onDocument: ({ tokens }) => void told.push(tokens),
  });
  expect(told).toEqual([64, 69]);
  expect(cut).toMatchObject({ documents: 2, tokens: 69, fit: null });
  const whole = await nllPosition(model, [text.slice(0, 64)], { positions: [63] });
  expect(cut.points[1]!.mean).toBeCloseTo(whole.points[0]!.mean!, 6);
  await expect(nllPosition(model, [text], { maxTokens: 1 })).rejects.toThrow(
    /maxTokens must be an integer of at least 2/,
  );
  const aborted = nllPosition(model, [text], { maxTokens: 9, signal: AbortSignal.abort(new Error("enough")) });
  await expect(aborted).rejects.toThrow("enough");
});

it("reads what consecutive prompts have in common once", async () => {
  const text = "The kettle is warm, and the road is long. ";
  const prompts = [`${text}Is it?`, `${text}Is it warm or cold?`, `${text}Is`, `Another text. ${text}`, `${text}Is`];
  const ask = (own: EvalModel, prompt: string) => own.generate({ prompt, maxTokens: 10, temperature: 0 });
  const fresh = await Promise.all(
    prompts.map(async (prompt) => {
      const own = localModel(transformer, params, byteTokenizer(), { id: "tiny" });
      const { text } = await ask(own, prompt);
      await own.close!();
      return text;
    }),
  );
  const before = memory().tensors;
  const own = localModel(transformer, params, byteTokenizer(), { id: "tiny", prefillChunk: 16 });
  const results = [];
  for (const prompt of prompts) results.push(await ask(own, prompt));
  expect(results.map(({ text }) => text)).toEqual(fresh);
  const shared = text.length + "Is it".length;
  // The last token of a prompt always goes through the model: its scores are wanted.
  expect(results.map(({ usage }) => usage!.cachedTokens)).toEqual([0, shared, text.length + 1, 0, 0]);
  await own.close!();
  expect(memory().tensors).toBe(before);
  expect(await ask(own, prompts[0]!)).toMatchObject({ text: fresh[0], usage: { cachedTokens: 0 } });
  await own.close!();
});

it("reads a prompt anew where a window has given up rows that it needs, or a request has failed", async () => {
  const own = localModel(transformer, params, byteTokenizer(), { id: "tiny", rollback: 4, prefillChunk: 8 });
  const text = "The kettle is warm, and the road is long. ".repeat(2);
  const cached = async (prompt: string, signal?: AbortSignal) => {
    const { usage } = await own.generate({ prompt, maxTokens: 10, temperature: 0, ...(signal && { signal }) });
    return usage!.cachedTokens;
  };
  expect(await cached(`${text}one`)).toBe(0);
  expect(await cached(`${text}a long question instead`)).toBe(0);
  const roomy = localModel(transformer, params, byteTokenizer(), { id: "tiny", rollback: 40 });
  for (const question of ["one", "two"]) await roomy.generate({ prompt: text + question, maxTokens: 10 });
  const { usage } = await roomy.generate({ prompt: `${text}three`, maxTokens: 1 });
  expect(usage!.cachedTokens).toBe(text.length + 1);
  await expect(cached(`${text}a`, AbortSignal.abort(new Error("enough")))).rejects.toThrow("enough");
  expect(await cached(`${text}a`)).toBe(0);
  await Promise.all([own, roomy].map((one) => one.close!()));
});

it("tells its context, so that longer samples are not asked", () => {
  expect(model.contextWindow).toBe(128);
  expect(model.tokenizer?.id).toBe("tiny");
});
