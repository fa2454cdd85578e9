/** The server's answers, asked with the `openai` client. */
import { cp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { generateTokens, loadHuggingFace } from "@llmeff/models";
import type { OpenAI } from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Workplace } from "./harness.js";
import { makeStories, root, Served, storiesText } from "./served.js";

let place: Workplace;
let served: Served;
let client: OpenAI;
beforeAll(async () => {
  place = await Workplace.create();
  await makeStories(place.path("stories"));
  served = await Served.start(place.path("stories"));
  client = served.client;
});
afterAll(async () => {
  await served[Symbol.asyncDispose]();
  await place[Symbol.asyncDispose]();
});

const start = "Once upon a time";
const greedy = { model: "stories", temperature: 0 };
const chat = (content: string): OpenAI.ChatCompletionMessageParam[] => [{ role: "user", content }];

describe("the model's card", () => {
  it("is listed and shown, with the length of its context", async () => {
    const models = await client.models.list();
    expect(models.data).toEqual([
      { id: "stories", object: "model", created: expect.any(Number), owned_by: "llmeff", max_model_len: 512 },
    ]);
    expect(await client.models.retrieve("stories")).toMatchObject({ id: "stories" });
  });
});

describe("completions", () => {
  it("are the model's own text, word for word", async () => {
    const text = await storiesText();
    const reply = await client.completions.create({ ...greedy, prompt: start, max_tokens: 120 });
    expect(reply).toMatchObject({ object: "text_completion", model: "stories" });
    expect(reply.choices).toMatchObject([{ index: 0, finish_reason: "length", logprobs: null }]);
    expect(reply.choices[0]!.text.length).toBeGreaterThan(200);
    expect(text.startsWith(start + reply.choices[0]!.text)).toBe(true);
    const prompt_tokens = (await served.tokens(start)).length;
    expect(reply.usage).toEqual({ prompt_tokens, completion_tokens: 120, total_tokens: prompt_tokens + 120 });
  });

  it("come in the same pieces together when they are streamed, with the usage where it is asked for", async () => {
    const asked = { ...greedy, prompt: start, max_tokens: 60 };
    const whole = await client.completions.create(asked);
    const stream = await client.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
    const parts: OpenAI.Completion[] = [];
    for await (const part of stream) parts.push(part);
    expect(parts.flatMap(({ choices }) => choices.map(({ text }) => text)).join("")).toBe(whole.choices[0]!.text);
    expect(parts.length).toBeGreaterThan(30);
    expect(parts.at(-2)!.choices).toMatchObject([{ text: "", finish_reason: "length" }]);
    expect(parts.at(-1)).toMatchObject({ choices: [], usage: whole.usage });
    expect(parts.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
    expect(new Set(parts.map(({ id }) => id)).size).toBe(1);
    const plain = await client.completions.create({ ...asked, stream: true });
    for await (const part of plain) expect(part).not.toHaveProperty("usage");
  });

  it("echo the prompt, take tokens and several prompts, and have 16 tokens where nothing is said", async () => {
    const [plain] = (await client.completions.create({ ...greedy, prompt: start })).choices;
    expect(plain).toMatchObject({ finish_reason: "length" });
    const ids = await served.tokens(start);
    const several = await client.completions.create({ ...greedy, prompt: [start, "Lily"], echo: true, n: 2 });
    expect(several.usage?.completion_tokens).toBe(4 * 16);
    expect(several.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(several.choices[0]!.text).toBe(start + plain!.text);
    expect(several.choices[1]!.text).toBe(start + plain!.text);
    expect(several.choices[2]!.text).toMatch(/^Lily/);
    const byIds = await client.completions.create({ ...greedy, prompt: [ids, ids] });
    expect(byIds.choices.map(({ text }) => text)).toEqual([plain!.text, plain!.text]);
    const echoed = await client.completions.create({ ...greedy, prompt: ids, echo: true, max_tokens: 0 });
    expect(echoed.choices).toMatchObject([{ text: start, finish_reason: "length" }]);
    const parts: string[] = [];
    const stream = await client.completions.create({ ...greedy, prompt: start, echo: true, stream: true });
    for await (const { choices } of stream) parts.push(choices[0]!.text);
    expect(parts[0]).toBe(start);
    expect(parts.join("")).toBe(start + plain!.text);
  });

  it("tell the log-probabilities that the model gives", async () => {
    const ids = await served.tokens(start);
    const { model, params } = await loadHuggingFace(place.path("stories"), { device: "cpu" });
    const expected: number[] = [];
    for await (const { logProb } of generateTokens(model, params, ids, { maxTokens: 8, temperature: 0 }))
      expected.push(logProb);
    const reply = await client.completions.create({ ...greedy, prompt: start, max_tokens: 8, logprobs: 3 });
    const { tokens, token_logprobs, top_logprobs, text_offset } = reply.choices[0]!.logprobs!;
    expect(tokens!.join("")).toBe(reply.choices[0]!.text);
    for (const [i, logProb] of expected.entries()) expect(token_logprobs![i]).toBeCloseTo(logProb, 5);
    expect(text_offset).toHaveLength(8);
    expect(text_offset![2]).toBe(tokens![0]!.length + tokens![1]!.length);
    for (const [i, top] of top_logprobs!.entries()) {
      expect(Object.keys(top)).toHaveLength(3);
      expect(Math.max(...Object.values(top))).toBe(token_logprobs![i]);
      expect(top[tokens![i]!]).toBe(token_logprobs![i]);
    }
    for (const param of Object.values(params)) param.dispose();
  });
});

describe("chat completions", () => {
  it("continue a conversation in the plain form where the checkpoint has no template", async () => {
    const alone = await client.completions.create({ ...greedy, prompt: start, max_tokens: 30 });
    const reply = await client.chat.completions.create({ ...greedy, messages: chat(start), max_tokens: 30 });
    expect(reply).toMatchObject({
      object: "chat.completion",
      choices: [{ index: 0, finish_reason: "length", message: { role: "assistant", content: alone.choices[0]!.text } }],
      usage: alone.usage,
    });
    const messages = [
      { role: "developer", content: "Be kind." },
      {
        role: "user",
        content: [
          { type: "text", text: "Hel" },
          { type: "text", text: "lo" },
        ],
      },
      { role: "assistant", content: "Yes?", refusal: null },
      { role: "user", content: "Go on", name: "ann" },
    ] as OpenAI.ChatCompletionMessageParam[];
    const flat = "System: Be kind.\n\nUser: Hello\n\nAssistant: Yes?\n\nUser: Go on\n\nAssistant:";
    const longer = await client.chat.completions.create({ ...greedy, messages, max_completion_tokens: 10 });
    const same = await client.completions.create({ ...greedy, prompt: flat, max_tokens: 10 });
    expect(longer.choices[0]!.message.content).toBe(same.choices[0]!.text);
    expect(longer.usage).toEqual(same.usage);
  });

  it("come in pieces that make the same answer", async () => {
    const asked = { model: "stories", messages: chat(start), max_tokens: 40, seed: 3, n: 2 };
    const whole = await client.chat.completions.create(asked);
    const stream = await client.chat.completions.create({
      ...asked,
      stream: true,
      stream_options: { include_usage: true },
    });
    const texts = ["", ""];
    const ends: (string | null)[] = [];
    const firsts = new Map<number, object>();
    for await (const { choices, usage, object } of stream) {
      expect(object).toBe("chat.completion.chunk");
      for (const { index, delta, finish_reason } of choices) {
        if (!firsts.has(index)) firsts.set(index, delta);
        texts[index] += delta.content ?? "";
        if (finish_reason !== null) ends.push(finish_reason);
      }
      if (choices.length === 0) expect(usage).toEqual(whole.usage);
    }
    expect(texts).toEqual(whole.choices.map(({ message }) => message.content));
    expect(texts[0]).not.toBe(texts[1]);
    expect(ends).toEqual(whole.choices.map(({ finish_reason }) => finish_reason));
    for (const delta of firsts.values()) expect(delta).toMatchObject({ role: "assistant", content: "" });
  });

  it("are collected by the client's own helper for streams", async () => {
    const asked = { ...greedy, messages: chat(start), max_tokens: 20 };
    const collected = await client.chat.completions.stream(asked).finalChatCompletion();
    const whole = await client.chat.completions.create(asked);
    expect(collected.choices[0]!.message.content).toBe(whole.choices[0]!.message.content);
  });

  it("draw the same for the same seed, and others for another or for none", async () => {
    const asked = { model: "stories", messages: chat(start), max_tokens: 40 };
    const draw = async (more: object) => {
      const reply = await client.chat.completions.create({ ...asked, ...more });
      return reply.choices.map(({ message }) => message.content);
    };
    expect(await draw({ seed: 7 })).toEqual(await draw({ seed: 7 }));
    expect(await draw({ seed: 7 })).not.toEqual(await draw({ seed: 8 }));
    // Seeds of chance: two texts of 40 tokens are equal once in 10⁷ times by the model's own probabilities, of 80 tokens once in 10²⁴.
    expect(await draw({ max_tokens: 80 })).not.toEqual(await draw({ max_tokens: 80 }));
    const three = await draw({ seed: 7, n: 3 });
    expect(three[0]).toBe((await draw({ seed: 7 }))[0]);
    expect(new Set(three).size).toBe(3);
    expect(await draw({ seed: -5 })).toEqual(await draw({ seed: -5 }));
    expect(await draw({ seed: 1, top_k: 1 })).toEqual(await draw({ temperature: 0 }));
    expect(await draw({ seed: 1, min_p: 1 })).toEqual(await draw({ temperature: 0 }));
    expect(await draw({ seed: 1, top_p: 1e-9 })).toEqual(await draw({ temperature: 0 }));
  });

  it("end before a stop text, in the middle of pieces too, and at the text's own end", async () => {
    const asked = { ...greedy, prompt: start, max_tokens: 60 };
    const whole = (await client.completions.create(asked)).choices[0]!.text;
    for (const stop of [whole.slice(40, 47), [whole.slice(70, 72), whole.slice(41, 46), "never"]]) {
      const cut = Math.min(
        ...[stop]
          .flat()
          .map((text) => whole.indexOf(text))
          .filter((at) => at >= 0),
      );
      for (const stream of [false, true]) {
        const texts: string[] = [];
        const ends: unknown[] = [];
        const reply = await client.completions.create({ ...asked, stop, stream });
        for await (const { choices } of "choices" in reply ? [reply] : reply) {
          texts.push(choices[0]!.text);
          ends.push(choices[0]!.finish_reason);
        }
        expect(texts.join("")).toBe(whole.slice(0, cut));
        expect(ends.at(-1)).toBe("stop");
      }
    }
    await cp(place.path("stories"), place.path("ending"), { recursive: true });
    const full = await client.completions.create({ ...greedy, prompt: start, max_tokens: 8, logprobs: 0 });
    // Its sixth token is made the one that ends a text.
    const ids: number[] = [];
    const written = served.model.batch.generate(await served.tokens(start), { maxTokens: 6, temperature: 0 });
    for await (const { id } of written) ids.push(id);
    await writeFile(place.path("ending/generation_config.json"), JSON.stringify({ eos_token_id: ids[5] }));
    await using ending = await Served.start(place.path("ending"));
    const ended = await ending.client.completions.create({ ...greedy, model: "ending", prompt: start, logprobs: 0 });
    // It is told with the others, as it was drawn, and isn't in the text.
    const tokens = full.choices[0]!.logprobs!.tokens!.slice(0, 6);
    expect(ended.choices[0]).toMatchObject({ finish_reason: "stop", logprobs: { tokens } });
    expect(ended.choices[0]!.text).toBe(tokens.slice(0, 5).join(""));
    const asMessage = { ...greedy, model: "ending", messages: chat(start), logprobs: true };
    const message = (await ending.client.chat.completions.create(asMessage)).choices[0]!;
    expect(message.logprobs!.content!.map(({ token }) => token)).toEqual(tokens.slice(0, 5));
    expect(full.choices[0]!.text.startsWith(ended.choices[0]!.text)).toBe(true);
    expect(ended.usage!.completion_tokens).toBe(6);
  });

  it("heed penalties and biases", async () => {
    const ids = await served.tokens(" dog");
    const bias = { [ids.at(-1)!]: 100 };
    const asked = { ...greedy, messages: chat(start), max_tokens: 12 };
    const biased = await client.chat.completions.create({ ...asked, logit_bias: bias });
    const repeated = biased.choices[0]!.message.content!;
    expect((await served.tokens(repeated)).filter((id) => id === ids.at(-1)).length).toBeGreaterThanOrEqual(11);
    const penalised = await client.chat.completions.create({ ...asked, logit_bias: bias, frequency_penalty: 2 });
    expect(penalised.choices[0]!.message.content).toBe(repeated); // 12 times 2 is less than 100
    const plain = (await client.chat.completions.create({ ...asked, max_tokens: 60 })).choices[0]!.message.content;
    for (const penalty of [{ frequency_penalty: 2 }, { presence_penalty: 2 }, { repetition_penalty: 1.5 }]) {
      const other = await client.chat.completions.create({ ...asked, max_tokens: 60, ...penalty });
      expect(other.choices[0]!.message.content).not.toBe(plain);
    }
  });

  it("tell tokens with their log-probabilities and bytes", async () => {
    const asked = { ...greedy, messages: chat(start), max_tokens: 8, logprobs: true, top_logprobs: 2 };
    const { logprobs, message } = (await client.chat.completions.create(asked)).choices[0]!;
    expect(logprobs!.content).toHaveLength(8);
    expect(logprobs!.content!.map(({ token }) => token).join("")).toBe(message.content);
    for (const { token, logprob, bytes, top_logprobs } of logprobs!.content!) {
      expect(bytes).toEqual([...Buffer.from(token)]);
      expect(logprob).toBeLessThanOrEqual(0);
      expect(top_logprobs).toHaveLength(2);
      expect(top_logprobs[0]).toEqual({ token, logprob, bytes });
      expect(top_logprobs[1]!.logprob).toBeLessThanOrEqual(logprob);
    }
    const streamed = [];
    for await (const { choices } of await client.chat.completions.create({ ...asked, stream: true }))
      streamed.push(...(choices[0]?.logprobs?.content ?? []));
    expect(streamed).toEqual(logprobs!.content);
  });

  it("pass over what says nothing about the answer", async () => {
    const asked = { ...greedy, messages: chat(start), max_tokens: 10 };
    const plain = await client.chat.completions.create(asked);
    const more = await client.chat.completions.create({
      ...asked,
      user: "ann",
      metadata: { a: "b" },
      service_tier: "auto",
      store: false,
      tools: [],
      tool_choice: "none",
      response_format: { type: "text" },
      modalities: ["text"],
      stop: null,
      top_p: null,
      seed: null,
      stream: null as unknown as false,
    });
    expect(more.choices).toEqual(plain.choices);
  });
});

describe("chat templates", () => {
  const template =
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' and not loop.first %}{{ raise_exception('system must be first') }}{% endif %}<|{{ m['role'] }}|>{{ m['content'] | trim }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
  const messages: OpenAI.ChatCompletionMessageParam[] = [
    { role: "system", content: " Be kind. " },
    { role: "user", content: "Hi" },
  ];
  const rendered = "<s><|system|>Be kind.\n<|user|>Hi\n<|assistant|>";

  async function withFiles(name: string, files: Record<string, unknown>): Promise<Served> {
    const folder = place.path(name);
    await cp(join(root, "golden/tiny-llama"), folder, { recursive: true });
    for (const [file, content] of Object.entries(files))
      await writeFile(join(folder, file), typeof content === "string" ? content : JSON.stringify(content));
    return Served.start(folder);
  }

  it.each<[string, Record<string, unknown>]>([
    ["in tokenizer_config.json", { "tokenizer_config.json": { chat_template: template, bos_token: "<s>" } }],
    [
      "of a name among several",
      {
        "tokenizer_config.json": {
          chat_template: [
            { name: "tool_use", template: "no" },
            { name: "default", template },
          ],
          bos_token: { content: "<s>", special: true },
        },
      },
    ],
    [
      "in a file of its own, before the other",
      { "chat_template.jinja": template, "tokenizer_config.json": { chat_template: "no", bos_token: "<s>" } },
    ],
  ])("are read %s", async (what, files) => {
    await using own = await withFiles(what.replace(/\W+/g, "-"), files);
    expect(own.model.hasChatTemplate).toBe(true);
    const ids = await own.model.chatPrompt([
      { role: "system", content: " Be kind. " },
      { role: "user", content: "Hi" },
    ]);
    expect(own.model.tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(rendered);
    expect(ids[0]).toBe(1);
    const reply = await own.client.chat.completions.create({ model: own.model.name, messages, max_tokens: 3 });
    expect(reply.usage!.prompt_tokens).toBe(ids.length);
    const refused = own.client.chat.completions.create({ model: own.model.name, messages: messages.toReversed() });
    await expect(refused).rejects.toMatchObject({
      status: 400,
      param: "messages",
      message: expect.stringContaining("system must be first"),
    });
  });

  it("keep a server from starting where they can't be used", async () => {
    const config = (chat_template: unknown) => ({ "tokenizer_config.json": { chat_template } });
    await expect(withFiles("open", config("{% for %}"))).rejects.toThrow(/chat template of .* can't be used/);
    await expect(withFiles("list", config([{ name: "tool_use", template: "" }]))).rejects.toThrow(/named "default"/);
    await expect(withFiles("json", { "tokenizer_config.json": "{" })).rejects.toThrow(/is not JSON/);
    await expect(withFiles("array", { "tokenizer_config.json": "[]" })).rejects.toThrow(/must hold a JSON object/);
  });
});

describe("models that can't be served", () => {
  it("are refused with the reason", async () => {
    await cp(place.path("stories"), place.path("mute"), { recursive: true });
    await expect(Served.start(place.path("mute"), { maxContext: 513 })).rejects.toThrow(/prepared for 512 tokens/);
    await rm(place.path("mute/tokenizer.json"));
    await expect(Served.start(place.path("mute"))).rejects.toThrow(/has no tokenizer.json/);
  });
});
