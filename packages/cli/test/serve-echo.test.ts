/** Log-probabilities of echoed prompts: what programs that compare the likelihoods of answers ask for. */
import { cp, writeFile } from "node:fs/promises";
import { loadHuggingFace, type Transformer } from "@llmeff/models";
import { memory, scope, type Tensor, tensor } from "@llmeff/tensor";
import type { OpenAI } from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Workplace } from "./harness.js";
import { makePlace, Served, until } from "./served.js";

let place: Workplace;
let served: Served;
let client: OpenAI;
let model: Transformer;
let params: Record<string, Tensor>;
beforeAll(async () => {
  place = await makePlace();
  served = await Served.start(place.path("stories"));
  client = served.client;
  ({ model, params } = await loadHuggingFace(place.path("stories"), { device: "cpu" }));
});
afterAll(async () => {
  for (const param of Object.values(params)) param.dispose();
  model.dispose();
  await served[Symbol.asyncDispose]();
  await place[Symbol.asyncDispose]();
});

const text = "Once upon a time, there was a little girl. She liked to play";
const asked = { model: "stories", temperature: 0, echo: true, logprobs: 1 } as const;

/** Of each token given those before it, by one pass over all; with the likeliest in its place. */
function logProbs(ids: ArrayLike<number>): { logProb: number; best: number }[] {
  const V = model.config.vocabSize;
  const z = scope(() => {
    const tokens = tensor(Int32Array.from(ids), { shape: [1, ids.length] });
    return model.logits(params, tokens).dataSync() as Float32Array;
  });
  return Array.from({ length: ids.length - 1 }, (_, t) => {
    const row = z.subarray(t * V, (t + 1) * V);
    const total = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
    return { logProb: row[ids[t + 1]!]! - total, best: Math.max(...row) - total };
  });
}

describe("an echoed prompt with log-probabilities", () => {
  it("has those of the model, but for its first token", async () => {
    const ids = await served.tokens(text);
    const expected = logProbs(ids);
    const reply = await client.completions.create({ ...asked, prompt: text, max_tokens: 0 });
    expect(reply.usage).toEqual({ prompt_tokens: ids.length, completion_tokens: 0, total_tokens: ids.length });
    const [{ text: told, logprobs, finish_reason }] = reply.choices as [OpenAI.CompletionChoice];
    expect([told, finish_reason]).toEqual([text, "length"]);
    const { tokens, token_logprobs, top_logprobs, text_offset } = logprobs!;
    expect(tokens!.slice(1).join("")).toBe(` ${text}`);
    expect([tokens![0], token_logprobs![0], top_logprobs![0]]).toEqual(["\n<s>\n", null, null]);
    for (const list of [tokens, token_logprobs, top_logprobs, text_offset]) expect(list).toHaveLength(ids.length);
    for (const [t, { logProb, best }] of expected.entries()) {
      expect(token_logprobs![t + 1]).toBeCloseTo(logProb, 4);
      const top = top_logprobs![t + 1]!;
      expect(Math.max(...Object.values(top))).toBeCloseTo(best, 4);
      expect(top[tokens![t + 1]!]).toBe(token_logprobs![t + 1]);
    }
    for (const [t, offset] of text_offset!.entries()) {
      const own = tokens![t]!.trimStart();
      if (t > 1) expect(text.slice(offset).trimStart().startsWith(own), `token ${t} at ${offset}`).toBe(true);
    }
  });

  it("goes on with what is drawn, the same as without an echo, whole and streamed, for all answers", async () => {
    const more = { prompt: [text, "Tom"], max_tokens: 7, n: 2, seed: 4, temperature: 0.8, logprobs: 2 };
    const whole = await client.completions.create({ ...asked, ...more });
    const plain = await client.completions.create({ ...asked, ...more, echo: false });
    const parts = new Map<number, OpenAI.Completion["choices"]>();
    for await (const { choices } of await client.completions.create({ ...asked, ...more, stream: true }))
      for (const choice of choices) parts.set(choice.index, [...(parts.get(choice.index) ?? []), choice]);
    for (const [i, { text: told, logprobs }] of whole.choices.entries()) {
      const prompt = more.prompt[i >> 1]!;
      const P = (await served.tokens(prompt)).length;
      const alone = plain.choices[i]!;
      expect(told).toBe(prompt + alone.text);
      expect(logprobs!.tokens!.slice(P)).toEqual(alone.logprobs!.tokens);
      for (const [t, logProb] of alone.logprobs!.token_logprobs!.entries())
        expect(logprobs!.token_logprobs![P + t]).toBeCloseTo(logProb, 4);
      expect(logprobs!.text_offset!.slice(P)).toEqual(alone.logprobs!.text_offset!.map((at) => at + prompt.length));
      // The prompt is scored once for both of its answers.
      expect(logprobs!.token_logprobs!.slice(0, P)).toEqual(
        whole.choices[i & ~1]!.logprobs!.token_logprobs!.slice(0, P),
      );
      const streamed = parts.get(i)!;
      expect(streamed[0]!.text).toBe(prompt);
      expect(streamed.map((part) => part.text).join("")).toBe(told);
      for (const field of ["tokens", "token_logprobs", "text_offset"] as const)
        expect(streamed.flatMap((part): unknown[] => part.logprobs?.[field] ?? [])).toEqual(logprobs![field]);
    }
  });

  it("and what is drawn have the places of their tokens in the text, though it leaves out the space that begins it", async () => {
    const { choices } = await client.completions.create({ ...asked, prompt: "", max_tokens: 6 });
    const [{ text: told, logprobs }] = choices as [OpenAI.CompletionChoice];
    const { tokens, text_offset } = logprobs!;
    expect(tokens!.slice(0, 3)).toEqual(["\n<s>\n", " Once", " upon"]);
    const between = tokens!.map((_, t) => told.slice(text_offset![t], text_offset![t + 1]));
    expect(between).toEqual(["", "Once", ...tokens!.slice(2)]);
  });

  it("answers requests as the local-completions model of lm-evaluation-harness sends and reads them", async () => {
    const pairs = [
      [" Once upon a time", " there was a little girl"],
      [" Once upon a time", " zebra"],
      [" Tom", " and"],
      ["", " The cat sat"],
    ] as const;
    const encode = (words: string) => Array.from(served.model.tokenizer.encode(words, { addSpecialTokens: false }));
    const [bos] = await served.tokens("a");
    await cp(place.path("stories"), place.path("ending"), { recursive: true });
    // The likeliest token after the first prompt ends a text here: it must count as one that was drawn.
    const prompts = pairs.map(([context, answer]) => [[bos!, ...encode(context)], encode(answer)] as const);
    const next = served.model.batch.generate(prompts[0]!.flat(), { maxTokens: 1, temperature: 0 });
    const { value: ending } = await next.next();
    await writeFile(place.path("ending/generation_config.json"), JSON.stringify({ eos_token_id: ending!.id }));
    for (const name of ["stories", "ending"]) {
      await using own = await Served.start(place.path(name));
      const body = {
        model: name,
        prompt: prompts.map((pair) => pair.flat()),
        temperature: 0,
        max_tokens: 1,
        logprobs: 1,
        seed: 1234,
        echo: true,
      };
      const reply = await own.client.completions.create(body);
      for (const [i, [context, answer]] of prompts.entries()) {
        const { token_logprobs, top_logprobs } = reply.choices[i]!.logprobs!;
        const of = <T>(list: T[] | undefined) => list!.slice(context.length, -1);
        expect(of(token_logprobs)).toHaveLength(answer.length);
        const expected = logProbs([...context, ...answer]).slice(context.length - 1);
        const sum = expected.reduce((total, { logProb }) => total + logProb, 0);
        expect(of(token_logprobs).reduce((a, b) => a + b, 0)).toBeCloseTo(sum, 3);
        const isGreedy = of(token_logprobs).every((one, t) => one === Math.max(...Object.values(of(top_logprobs)[t]!)));
        expect(isGreedy).toBe(expected.every(({ logProb, best }) => logProb === best));
      }
    }
  });

  it("counts characters where they take several tokens", async () => {
    await using bytes = await Served.start(place.path("endless"));
    const body = { ...asked, model: "endless", prompt: "aé€b", max_tokens: 2 };
    const [{ text: told, logprobs }] = (await bytes.client.completions.create(body)).choices as [
      OpenAI.CompletionChoice,
    ];
    expect(told.startsWith("aé€b")).toBe(true);
    // a; the two bytes of é; the three of €; b; and two drawn ones.
    expect(logprobs!.text_offset!.slice(0, 8)).toEqual([0, 1, 1, 2, 2, 2, 3, 4]);
    expect(logprobs!.token_logprobs).toHaveLength(9);
    const one = await bytes.client.completions.create({ ...body, prompt: [97], max_tokens: 0 });
    expect(one.choices[0]).toMatchObject({
      text: "a",
      logprobs: { tokens: ["a"], token_logprobs: [null], text_offset: [0] },
    });
  });
});

describe("scoring a long prompt", () => {
  it("doesn't hold up others, and frees what was kept for clients that leave", async () => {
    await using bytes = await Served.start(place.path("endless"));
    const long = { ...asked, model: "endless", prompt: "a".repeat(20_000), max_tokens: 1, n: 2 };
    await bytes.client.completions.create(long);
    await until(() => bytes.model.batch.active === 0);
    const level = memory().liveBytes;
    const leave = new AbortController();
    const scored = bytes.client.completions.create(long, { signal: leave.signal });
    await until(() => bytes.model.batch.active === 1);
    const other = await bytes.client.completions.create({ model: "endless", prompt: "b", max_tokens: 20 });
    expect(other.usage!.completion_tokens).toBe(20);
    expect(bytes.model.batch.active).toBe(1);
    leave.abort();
    await expect(scored).rejects.toThrow();
    await until(() => bytes.model.batch.active === 0 && memory().liveBytes === level);
    expect(bytes.failures).toEqual([]);
  });
});
