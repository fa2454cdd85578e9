import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { byteTokenizer, type Tokenizer, trainBpe } from "@llmeff/data";
import { Transformer } from "@llmeff/models";
import { memory, scope, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { collectGarbage } from "../../../test/garbage.js";
import { plainSample, scorePlain } from "../test/samples.js";
import { type ChatTemplate, localModel } from "./local.js";
import type { EvalModel, GenRequest } from "./models/eval-model.js";
import { nllPosition } from "./models/nll-position.js";
import { oracleModel } from "./models/stand-ins.js";
import { runEvaluation } from "./runner/run.js";

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
  await collectGarbage();
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
  await collectGarbage();
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

it("encodes no more of a long document than its first tokens take", async () => {
  const text = Array.from({ length: 20_000 }, (_, i) => `The kettle of number ${i} is warm.`).join(" ");
  const bpe = await trainBpe([text.slice(0, 5000)], { vocabSize: 256 + 100 });
  const wide = new Transformer({ vocabSize: bpe.vocabSize, dModel: 8, numLayers: 1, numHeads: 2, maxSeqLen: 64 });
  const own = localModel(wide, wide.init(1), bpe, { id: "bpe" });
  let encoded = 0;
  const asked: number[][] = [];
  const watched: EvalModel = {
    ...own,
    tokenizer: {
      ...own.tokenizer!,
      encode: (part) => {
        encoded += part.length;
        return own.tokenizer!.encode(part);
      },
    },
    tokenLogProbs: (ids) => {
      asked.push(Array.from(ids));
      return own.tokenLogProbs!(ids);
    },
  };
  const options = { maxTokens: 50, positions: [49] };
  await nllPosition(watched, [text, text.slice(0, 300), `${"x".repeat(3000)} ${text}`, "x".repeat(3000)], options);
  const whole = (part: string) => Array.from(own.tokenizer!.encode(part)).slice(0, 50);
  expect(asked).toEqual([text, text.slice(0, 300), "x".repeat(3000), "x".repeat(3000)].map(whole));
  expect(encoded).toBeLessThan(20_000);
});

describe("a prompt that doesn't fit", () => {
  const long = "x".repeat(100);

  it("is told as such, with its answer, and never cut", async () => {
    const fits = await model.generate({ prompt: long, maxTokens: 28, temperature: 0 });
    expect(fits).toMatchObject({ finish: "length", usage: { promptTokens: 100, completionTokens: 28 } });
    await expect(model.generate({ prompt: long, maxTokens: 29 })).rejects.toMatchObject({
      kind: "contextExceeded",
      message: "[local] the prompt has 100 tokens and the answer up to 29; the context of tiny has 128.",
    });
  });

  it("is counted in a run whose samples were made with another tokenizer", async () => {
    const folder = await mkdtemp(join(tmpdir(), "llmeff-local-"));
    const samples = [plainSample(0), plainSample(1, { messages: [{ role: "user", content: long }] }), plainSample(2)];
    const { statuses } = await runEvaluation({
      folder,
      models: [{ model }],
      samples: () => samples,
      score: scorePlain,
    });
    expect(statuses).toMatchObject({ truncated: 2, context_exceeded: 1, error: 0 });
    await rm(folder, { recursive: true });
  });
});

/** Bytes between a token that begins a text and one that ends it. */
function bracketed(): Tokenizer {
  const bytes = byteTokenizer();
  return {
    ...bytes,
    vocabSize: 256,
    encode: (text, { addSpecialTokens = true } = {}) =>
      addSpecialTokens ? Int32Array.of(1, ...bytes.encode(text), 2) : bytes.encode(text),
    decode: (ids) => bytes.decode(ids),
  };
}

describe("a tokenizer that begins every text with a token", () => {
  const begun = localModel(transformer, params, bracketed(), { id: "begun" });
  const ask = (own: EvalModel, prompt: string) => own.generate({ prompt, maxTokens: 10, temperature: 0 });

  it("has it in prompts, once, and counts it", async () => {
    const text = "The kettle is warm.";
    const { text: answer, usage } = await ask(begun, text);
    expect(answer).toBe((await ask(model, `\u0001${text}`)).text);
    expect(usage!.promptTokens).toBe(1 + text.length);
    expect(begun.overhead!([{ role: "user", content: text }])).toBe(1);
    expect(model.overhead!([{ role: "user", content: text }])).toBe(0);
  });

  it("has it before documents, so that their first token has a likelihood too", async () => {
    const ids = Int32Array.from(Buffer.from("The kettle"));
    const values = await begun.tokenLogProbs!(ids);
    const expected = (await model.tokenLogProbs!(Int32Array.of(1, ...ids))).subarray(1);
    expect(Array.from(values)).toEqual(Array.from(expected));
    expect(Array.from(await begun.tokenLogProbs!(ids, { from: 4 }))).toEqual(Array.from(expected.subarray(4)));
    const { points } = await nllPosition(begun, ["The kettle"], { positions: [10] });
    expect(points[0]!.mean).toBeCloseTo(-expected.reduce((sum, value) => sum + value, 0) / 10, 6);
    expect(begun.documentWindow).toBe(127);
    await expect(nllPosition(begun, ["x".repeat(128)])).rejects.toThrow(/has 128 tokens, and begun takes 127/);
  });
});

describe("a chat template", () => {
  const chatTemplate: ChatTemplate = (messages) => {
    if (messages[0]?.role === "system") throw new Error("no system messages");
    return `${messages.map(({ role, content }) => `<${role}>${content.trim()}`).join("")}<assistant>`;
  };
  const chat = localModel(transformer, params, bracketed(), { id: "chat", chatTemplate });

  it("writes conversations with the special tokens that it has itself, and counts what it adds", async () => {
    const messages = [
      { role: "user", content: "Is it warm? " },
      { role: "assistant", content: "Yes" },
      { role: "user", content: "And the road?" },
    ] as const;
    const { text, usage } = await chat.generate({ messages, maxTokens: 8, temperature: 0 });
    const written = "<user>Is it warm?<assistant>Yes<user>And the road?<assistant>";
    expect(text).toBe((await model.generate({ prompt: written, maxTokens: 8, temperature: 0 })).text);
    expect(usage!.promptTokens).toBe(written.length);
    expect(chat.kind).toBe("chat");
    const contents = messages.reduce((sum, { content }) => sum + content.length, 0);
    // The blank that it takes off, and a token a message in reserve.
    expect(chat.overhead!(messages) + contents - written.length).toBe(1 + 3);
    // Replies to other prompts are kept under other keys.
    const { parameters } = model.fingerprint!;
    expect(chat.fingerprint).toEqual({
      ...{ local: "chat", parameters, beginTokens: [1] },
      chatTemplate: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    expect(model.fingerprint).toEqual({ local: "tiny", parameters });
  });

  it("may refuse messages, which is the sample's error", async () => {
    const messages = [{ role: "system", content: "Be brief." }] as const;
    await expect(chat.generate({ messages, maxTokens: 8 })).rejects.toMatchObject({
      kind: "error",
      message: "[local] the chat template of chat refuses these messages: no system messages",
    });
  });

  it("is what a conversation without one costs too", () => {
    const messages = [
      { role: "user", content: "a" },
      { role: "assistant", content: "b" },
    ] as const;
    expect(model.overhead!(messages)).toBe("User: \n\nAssistant: \n\nAssistant:".length + 2);
  });
});

describe("a batch", () => {
  const text = "The kettle is warm, and the road is long. ";
  const requests: GenRequest[] = [
    { prompt: `${text}Is it?`, maxTokens: 12, temperature: 0 },
    { prompt: `${text}Is it warm or cold?`, maxTokens: 5, temperature: 0 },
    { prompt: "Another text.", maxTokens: 20, temperature: 0 },
    { prompt: `${text}Is it?`, maxTokens: 12, temperature: 1, seed: 1 },
    { prompt: `${text}Is it?`, maxTokens: 12, temperature: 1, seed: 2 },
    { prompt: "x", maxTokens: 9, temperature: 0.7, seed: 3 },
  ];

  it("gives the answers of each request alone, and reads what prompts have in common once", async () => {
    const alone = [];
    for (const request of requests) alone.push((await model.generate(request)).text);
    await model.close!();
    expect(new Set(alone).size).toBeGreaterThan(4);
    await collectGarbage();
    const before = memory().tensors;
    for (const prefillChunk of [16, 2048]) {
      const own = localModel(transformer, params, byteTokenizer(), { id: "tiny", batch: 4, prefillChunk });
      const results = await Promise.all(requests.map((request) => own.generate(request)));
      expect(results.map(({ text }) => text)).toEqual(alone);
      const cached = results.map(({ usage }) => usage!.cachedTokens!);
      expect(cached[0]).toBe(0);
      expect(cached[1]).toBe(text.length + "Is it".length);
      expect(cached[3]).toBe(requests[0]!.prompt!.length - 1);
      await own.close!();
      expect(memory().tensors).toBe(before);
    }
  });

  it("answers alone what is too long for its share of the memory, in the order of the calls", async () => {
    // Of this model a position takes two layers, 2 heads of 8 channels, keys and values in float32; the first layer has 8 of them.
    const bytes = (positions: number) => 4 * 2 * 16 * (8 + positions);
    const own = localModel(transformer, params, byteTokenizer(), { id: "tiny", batch: 2, batchBytes: 3 * bytes(40) });
    const order: string[] = [];
    const ask = async (prompt: string, maxTokens: number) => {
      const { usage } = await own.generate({ prompt, maxTokens, temperature: 0 });
      order.push(prompt.slice(0, 1));
      return usage!.cachedTokens;
    };
    const [, , first, again] = await Promise.all([
      ask("a", 30),
      ask("b", 20),
      ask(`c${text}?`, 10),
      ask(`c${text}!`, 10),
      ask("d", 2),
    ]);
    expect(order).toEqual(["b", "a", "c", "c", "d"]);
    expect([first, again]).toEqual([0, 1 + text.length]);
    await own.close!();
  });

  it("goes on where one of its requests is given up", async () => {
    const own = localModel(transformer, params, byteTokenizer(), { id: "tiny", batch: 4 });
    await collectGarbage();
    const before = memory().tensors;
    const given = AbortSignal.abort(new Error("enough"));
    const [first, second] = await Promise.allSettled([
      own.generate({ ...requests[0]!, signal: given }),
      own.generate(requests[2]!),
    ]);
    expect(first).toMatchObject({ status: "rejected", reason: { message: "enough" } });
    expect(second).toMatchObject({ value: { text: (await model.generate(requests[2]!)).text } });
    await Promise.all([own.close!(), model.close!()]);
    expect(memory().tensors).toBe(before);
    const options = { id: "tiny", batch: 0 };
    expect(() => localModel(transformer, params, byteTokenizer(), options)).toThrow(/batch must be an integer/);
  });
});
