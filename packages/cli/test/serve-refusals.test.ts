/** What the server refuses, and that it lives on. */
import { cp } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { join } from "node:path";
import { loadSafetensors, saveSafetensors, tensor } from "@llmeff/tensor";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Workplace } from "./harness.js";
import { makeStories, root, Served } from "./served.js";

let place: Workplace;
let served: Served;
beforeAll(async () => {
  place = await Workplace.create();
  await makeStories(place.path("stories"));
  served = await Served.start(place.path("stories"), { maxBodyBytes: 20_000 });
});
afterAll(async () => {
  await served[Symbol.asyncDispose]();
  await place[Symbol.asyncDispose]();
});

const messages = [{ role: "user", content: "Hi" }];
const chat = { model: "stories", messages, max_tokens: 1 };
const text = { model: "stories", prompt: "Hi", max_tokens: 1 };

afterEach(async () => {
  expect((await served.client.completions.create(text)).choices).toHaveLength(1);
  expect(served.model.batch).toMatchObject({ active: 0, waiting: 0 });
  expect(served.failures).toEqual([]);
});

describe("requests", () => {
  it.each<[param: string, fields: object, message: RegExp]>([
    ["model", { model: undefined }, /expected the name of a model; received nothing/],
    ["model", { model: 3 }, /received 3/],
    ["messages", { messages: undefined }, /expected a list of messages/],
    ["messages", { messages: "Hi" }, /expected a list of messages; received "Hi"/],
    ["messages", { messages: [] }, /at least one message/],
    ["messages[0]", { messages: ["Hi"] }, /expected an object/],
    ["messages[0].role", { messages: [{ role: "tool", content: "4" }] }, /expected one of "system", .*received "tool"/],
    ["messages[0].content", { messages: [{ role: "user" }] }, /expected a text or a list of text parts/],
    ["messages[0].content", { messages: [{ role: "user", content: 5 }] }, /received 5/],
    ["messages[0].content[0]", { messages: [{ role: "user", content: [{ type: "text" }] }] }, /expected \{ "type"/],
    [
      "messages[0].content[1].type",
      {
        messages: [
          {
            role: "user",
            content: [
              { type: "text", text: "" },
              { type: "image_url", image_url: {} },
            ],
          },
        ],
      },
      /"image_url" is not supported; this model reads text alone/,
    ],
    ["messages[0].tool_calls", { messages: [{ role: "assistant", content: "", tool_calls: [] }] }, /not supported/],
    ["colour", { colour: "red" }, /unknown key "colour"/],
    ["temprature", { temprature: 1 }, /Did you mean "temperature"\?/],
    ["temperature", { temperature: -0.1 }, /expected a number in 0\.\.2; received -0\.1/],
    ["temperature", { temperature: "1" }, /received "1"/],
    ["top_p", { top_p: 0 }, /above 0 and at most 1/],
    ["top_k", { top_k: 1.5 }, /positive integer/],
    ["min_p", { min_p: 2 }, /0\.\.1/],
    ["n", { n: 0 }, /1\.\.128/],
    ["n", { n: 1e9 }, /1\.\.128/],
    ["seed", { seed: 0.5 }, /an integer/],
    ["stop", { stop: "" }, /none empty/],
    ["stop", { stop: new Array(17).fill("a") }, /at most 16/],
    ["stop[0]", { stop: [3] }, /expected a text that isn't empty; received 3/],
    ["presence_penalty", { presence_penalty: 3 }, /-2\.\.2/],
    ["repetition_penalty", { repetition_penalty: 0 }, /1e-6\.\.1e6/],
    ["repetition_penalty", { repetition_penalty: 1e-320 }, /1e-6\.\.1e6/],
    ["__proto__", JSON.parse(`{ "__proto__": { "n": 2 } }`), /unknown key/],
    ["logit_bias", { logit_bias: [1] }, /expected an object of token ids/],
    ["logit_bias.x", { logit_bias: { x: 1 } }, /logit_bias/],
    ["logit_bias.1", { logit_bias: { 1: 101 } }, /-100\.\.100/],
    ["logit_bias", { logit_bias: { 512: 1 } }, /no token 512; ids are below 512/],
    ["max_tokens", { max_tokens: 0 }, /positive integer/],
    ["max_tokens", { max_completion_tokens: 3 }, /name one limit/],
    ["top_logprobs", { top_logprobs: 3 }, /only together with logprobs/],
    ["top_logprobs", { logprobs: true, top_logprobs: 21 }, /0\.\.20/],
    ["logprobs", { logprobs: 3 }, /true or false/],
    ["stream", { stream: "yes" }, /true or false/],
    ["stream_options", { stream_options: { include_usage: true } }, /only together with stream/],
    ["stream_options", { stream: true, stream_options: { usage: 1 } }, /unknown key "usage"/],
    ["tools", { tools: [{ type: "function", function: { name: "f" } }] }, /tools is not supported/],
    ["tool_choice", { tool_choice: "required" }, /not supported/],
    ["response_format", { response_format: { type: "json_object" } }, /not supported/],
    ["modalities", { modalities: ["text", "audio"] }, /not supported/],
    ["reasoning_effort", { reasoning_effort: "high" }, /not supported/],
    ["store", { store: true }, /not supported/],
    [
      "messages",
      { max_tokens: 512 },
      /maximum context length is 512 tokens.* has \d+ in the prompt and asks for 512 more/,
    ],
    ["messages", { messages: [{ role: "user", content: "a ".repeat(3000) }] }, /maximum context length/],
  ])("of a chat are refused for their %s: %j", async (param, fields, message) => {
    const reply = await served.fetch("/chat/completions", { ...chat, ...fields });
    const { error } = (await reply.json()) as { error: Record<string, unknown> };
    expect(error).toMatchObject({ type: "invalid_request_error", param, message: expect.stringMatching(message) });
    expect(error).toHaveProperty("code");
    expect(reply.status).toBe(400);
  });

  it.each<[param: string, fields: object, message: RegExp]>([
    ["prompt", { prompt: undefined }, /expected a text, a list of token ids/],
    ["prompt", { prompt: [] }, /none empty/],
    ["prompt[1]", { prompt: [1, "a"] }, /expected an integer of at least 0; received "a"/],
    ["prompt[0]", { prompt: [1.5] }, /integer/],
    ["prompt", { prompt: [512] }, /no token 512/],
    ["prompt[1]", { prompt: [[1], []] }, /expected a list of token ids; received \[\]/],
    ["prompt", { prompt: new Array(513).fill(1), max_tokens: 0 }, /maximum context length/],
    ["n", { prompt: new Array(200).fill("a"), n: 2 }, /asks for 400 answers; this server takes 256/],
    ["logprobs", { logprobs: 21 }, /0\.\.20/],
    ["logprobs", { logprobs: true }, /0\.\.20/],
    ["suffix", { suffix: "end" }, /not supported/],
    ["best_of", { best_of: 2 }, /not supported/],
    ["messages", { messages }, /unknown key "messages"/],
  ])("of a completion are refused for their %s: %j", async (param, fields, message) => {
    const reply = await served.fetch("/completions", { ...text, ...fields });
    const { error } = (await reply.json()) as { error: Record<string, unknown> };
    expect(error).toMatchObject({ type: "invalid_request_error", message: expect.stringMatching(message) });
    expect(String(error.param)).toBe(param);
    expect(reply.status).toBe(400);
  });

  it("are refused in the form that the client knows", async () => {
    await expect(served.client.completions.create({ ...text, model: "gpt" })).rejects.toMatchObject({
      status: 404,
      code: "model_not_found",
      param: "model",
      message: expect.stringContaining("The model `gpt` does not exist; this server has `stories`"),
    });
    const long = served.client.completions.create({ ...text, max_tokens: 600, stream: true });
    await expect(long).rejects.toMatchObject({ status: 400, code: "context_length_exceeded" });
  });

  it.each<[string, string | Uint8Array, number, RegExp, string?]>([
    ["no JSON", "{", 400, /not JSON/],
    ["nothing", "", 400, /not JSON/],
    ["a list", "[]", 400, /must be a JSON object/],
    ["null", "null", 400, /must be a JSON object/],
    ["deep nesting", `{"model":${"[".repeat(9000)}${"]".repeat(9000)}}`, 400, /expected the name of a model/],
    ["bytes that aren't UTF-8", new Uint8Array([0x22, 0xff, 0x22]), 400, /not valid UTF-8/],
    ["another type", JSON.stringify(text), 415, /application\/json; received text\/plain/, "text/plain"],
    ["more bytes than are read", JSON.stringify({ ...text, prompt: "a".repeat(30_000) }), 413, /more than 20000 bytes/],
    ["very many more", JSON.stringify({ ...text, prompt: "a".repeat(79_000) }), 413, /more than 20000 bytes/],
  ])("with a body of %s are refused", async (_, body, status, message, type = "application/json") => {
    const reply = await served.fetch("/completions", "", {
      body: body as string,
      headers: { "content-type": type },
    });
    expect(((await reply.json()) as { error: { message: string } }).error.message).toMatch(message);
    expect(reply.status).toBe(status);
  });

  it("with an endless body are ended", async () => {
    const body = new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(10_000).fill(0x20)) });
    const init = { method: "POST", headers: { "content-type": "application/json" }, body, duplex: "half" };
    const outcome = await fetch(`${served.url}/completions`, init as RequestInit).then(
      ({ status }) => status,
      () => "closed",
    );
    expect([413, "closed"]).toContain(outcome);
  });

  it.each([
    ["GET", "/v1/completions", 405],
    ["DELETE", "/v1/models/stories", 405],
    ["POST", "/health", 405],
    ["GET", "/v1/nothing", 404],
    ["GET", "/v1/models/other", 404],
    ["GET", "/", 404],
    ["GET", "/__proto__", 404],
    ["GET", "/v1/models?x=1", 200],
    ["GET", "/health", 200],
  ])("of %s %s get %i", async (method, path, status) => {
    const reply = await fetch(`${served.service.url}${path}`, { method });
    expect(reply.status).toBe(status);
    if (status === 405) expect(reply.headers.get("allow")).toMatch(/^(GET|POST)$/);
    const body = (await reply.json()) as { error?: { message: string } };
    expect(typeof body.error?.message).toBe(status === 200 ? "undefined" : "string");
  });

  it("have an answer of no tokens where none are asked for, or none fit", async () => {
    const nothing = await served.client.completions.create({ ...text, max_tokens: 0 });
    expect(nothing.choices).toMatchObject([{ text: "", finish_reason: "length" }]);
    const full = { ...text, prompt: new Array(511).fill(300), max_tokens: 1 };
    expect((await served.client.completions.create(full)).usage).toMatchObject({ total_tokens: 512 });
    const unsaid = { model: "stories", prompt: new Array(509).fill(300) };
    expect((await served.client.completions.create(unsaid)).usage).toMatchObject({ total_tokens: 512 });
    const none = served.client.completions.create({ model: "stories", prompt: new Array(512).fill(300) });
    await expect(none).rejects.toMatchObject({ status: 400, code: "context_length_exceeded" });
  });
});

describe("access", () => {
  it("needs the key where there is one, but for the health", async () => {
    await using own = await Served.start(place.path("stories"), { key: "secret-key" });
    const status = async (path: string, headers: Record<string, string>) =>
      (await fetch(`${own.service.url}${path}`, { headers })).status;
    for (const authorization of [
      "",
      "Bearer",
      "Bearer secret-kez",
      "Bearer secret-key2",
      "Basic secret-key",
      "secret-key",
    ])
      expect(await status("/v1/models", { authorization }), authorization).toBe(401);
    expect(await status("/v1/nothing", {})).toBe(401);
    expect(await status("/v1/models", { authorization: "Bearer secret-key" })).toBe(200);
    expect(await status("/health", {})).toBe(200);
    await expect(own.client.models.list()).rejects.toMatchObject({ status: 401, code: "invalid_api_key" });
    expect(JSON.stringify(own.failures)).not.toContain("secret");
  });

  it("is for web pages of the origin that was named alone", async () => {
    const ask = async (own: Served, origin: string, method = "POST") => {
      const reply = await fetch(`${own.url}/completions`, {
        method,
        headers: { origin, "content-type": "application/json" },
        ...(method === "POST" ? { body: JSON.stringify({ ...text, model: "stories" }) } : {}),
      });
      return [reply.status, reply.headers.get("access-control-allow-origin")];
    };
    expect(await ask(served, "https://page.example")).toEqual([403, null]);
    expect(await ask(served, "https://page.example", "OPTIONS")).toEqual([403, null]);
    await using own = await Served.start(place.path("stories"), { corsOrigin: "https://page.example", key: "k" });
    expect(await ask(own, "https://page.example", "OPTIONS")).toEqual([204, "https://page.example"]);
    expect(await ask(own, "https://page.example")).toEqual([401, "https://page.example"]);
    expect(await ask(own, "https://other.example")).toEqual([403, null]);
    await using all = await Served.start(place.path("stories"), { corsOrigin: "*" });
    expect(await ask(all, "https://other.example")).toEqual([200, "*"]);
  });
});

describe("failures", () => {
  it("of the model are told as such, whole and in a stream, and the server lives on", async () => {
    await cp(join(root, "golden/tiny-llama"), place.path("diverged"), { recursive: true });
    const path = place.path("diverged/model.safetensors");
    const { tensors } = await loadSafetensors(path);
    const norm = tensors["model.norm.weight"]!;
    await saveSafetensors(path, {
      ...tensors,
      "model.norm.weight": tensor(new Float32Array(norm.size).fill(Number.NaN)),
    });
    await using own = await Served.start(place.path("diverged"));
    const asked = { model: "diverged", prompt: "a" };
    await expect(own.client.completions.create(asked)).rejects.toMatchObject({
      status: 500,
      message: expect.stringContaining("The server failed to answer"),
    });
    const stream = await own.client.completions.create({ ...asked, stream: true, n: 3 });
    await expect(async () => {
      for await (const _ of stream);
    }).rejects.toThrow(/server failed to answer/);
    const scored = { ...asked, echo: true, logprobs: 0, n: 2 };
    await expect(own.client.completions.create(scored)).rejects.toMatchObject({ status: 500 });
    expect(own.failures.map(({ message }) => message)).toEqual(new Array(3).fill(expect.stringContaining("NaN")));
    expect((await own.client.models.list()).data).toHaveLength(1);
    expect(own.model.batch.active).toBe(0);
  });

  it("to listen are told with the address", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => other.once("listening", resolve));
    const { port } = other.address() as AddressInfo;
    await expect(Served.start(place.path("stories"), { port })).rejects.toThrow(
      new RegExp(`127\\.0\\.0\\.1:${port} can't be listened on: .*EADDRINUSE`),
    );
    other.close();
  });
});
