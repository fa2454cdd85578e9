import { describe, expect, it } from "vitest";
import { type Asked, type Behaviour, TestEndpoint } from "../../../../test/openai-endpoint.js";
import { type GenRequest, ModelError } from "./eval-model.js";
import { type HttpModelOptions, httpModel, listModels } from "./http-model.js";

const request: GenRequest = { messages: [{ role: "user", content: "grüße 🌍" }], maxTokens: 16, temperature: 0 };

async function ask(behaviour: Behaviour | ((asked: Asked) => Behaviour), options: HttpModelOptions = {}) {
  await using endpoint = await TestEndpoint.start(typeof behaviour === "function" ? behaviour : () => behaviour);
  const model = httpModel(endpoint.url, "m1", options);
  try {
    const result = await model.generate(request);
    return { result, endpoint };
  } finally {
    await model.close?.();
  }
}

async function failure(behaviour: Behaviour, options: HttpModelOptions = {}): Promise<ModelError> {
  const error = await ask(behaviour, options).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ModelError);
  return error as ModelError;
}

describe("httpModel", () => {
  it.each([true, false])("asks and reads an answer, streamed: %s", async (stream) => {
    const { result, endpoint } = await ask({ kind: "answer", text: "größer 🌍", reasoning: "hm" }, { stream });
    expect(result).toMatchObject({ text: "größer 🌍", reasoning: "hm", finish: "stop" });
    expect(result.usage).toEqual({ promptTokens: 11, completionTokens: 4, cachedTokens: 3 });
    expect(result.totalMs).toBeGreaterThan(0);
    expect(endpoint.asked[0]!.body).toMatchObject({
      model: "m1",
      max_tokens: 16,
      temperature: 0,
      messages: request.messages,
    });
  });

  it("speaks to /completions, with messages as one text", async () => {
    const { result, endpoint } = await ask({ kind: "answer", text: " 4" }, { api: "completions" });
    expect(result.text).toBe(" 4");
    expect(endpoint.asked[0]).toMatchObject({ path: "/v1/completions", prompt: "grüße 🌍" });
  });

  it("sends the key and further headers and fields, and keeps no secret in its fingerprint", async () => {
    const options = {
      keyEnv: "K",
      env: { K: "sk-very-secret" },
      headers: { "x-org": "acme-secret" },
      body: { reasoning_effort: "low" },
    };
    const { endpoint } = await ask({ kind: "answer" }, options);
    expect(endpoint.asked[0]!.headers).toMatchObject({
      authorization: "Bearer sk-very-secret",
      "x-org": "acme-secret",
    });
    expect(endpoint.asked[0]!.body.reasoning_effort).toBe("low");
    expect(JSON.stringify(httpModel("http://x/v1", "m", options).fingerprint)).not.toMatch(/secret/);
  });

  it("takes the name of the token limit, and no stream options, from what the endpoint refuses, once", async () => {
    await using endpoint = await TestEndpoint.start(({ body }): Behaviour => {
      if ("max_tokens" in body) return status(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.");
      if ("stream_options" in body) return status(400, "stream_options: extra fields not permitted");
      return { kind: "answer", text: "yes" };
    });
    const model = httpModel(endpoint.url, "m1");
    expect((await model.generate(request)).text).toBe("yes");
    expect((await model.generate(request)).text).toBe("yes");
    expect(endpoint.tally.requests).toBe(4);
    await model.close?.();
  });

  it.each([
    ["length", "length"],
    ["content_filter", "filter"],
    ["stop", "stop"],
  ])("knows the finish reason %s", async (reason, finish) => {
    expect((await ask({ kind: "answer", finish: reason })).result.finish).toBe(finish);
  });

  it("takes an empty answer for an answer", async () => {
    expect((await ask({ kind: "answer", text: "" })).result).toMatchObject({ text: "", finish: "stop" });
  });

  it.each([
    [500, "boom", "retry"],
    [502, "<html>bad gateway</html>", "retry"],
    [408, "late", "retry"],
    [429, "slow down", "retry"],
    [429, "You exceeded your current quota, please check your plan and billing details.", "stop"],
    [401, "Incorrect API key provided: sk-ab***yz", "stop"],
    [403, "forbidden", "stop"],
    [402, "pay", "stop"],
    [404, "The model `m1` does not exist", "stop"],
    [404, "page not found", "stop"],
    [400, "The model `m1` does not exist", "stop"],
    [400, "This model's maximum context length is 4096 tokens. However, you requested 5000", "contextExceeded"],
    [400, "prompt is too long: 210000 tokens > 200000 maximum", "contextExceeded"],
    [413, "Request too large: exceeds the available context size", "contextExceeded"],
    [400, "The response was filtered due to the content management policy", "refused"],
    [400, "unknown field foo", "error"],
    [422, "temperature must be positive", "error"],
  ] as const)("takes %i %s for %s", async (code, message, kind) => {
    const error = await failure(status(code, message));
    expect(error).toMatchObject({ kind, status: code });
    expect(error.message).not.toMatch(/sk-ab/);
  });

  it("says which environment variable holds a key that was refused, and doesn't say the key", async () => {
    const options = { keyEnv: "MY_KEY", env: { MY_KEY: "topsecret99" } };
    const { message } = await failure(status(401, "bad key topsecret99"), options);
    expect(message).toContain("MY_KEY");
    expect(message).not.toContain("topsecret99");
  });

  it.each([
    [{ "retry-after": "7" }, 7000],
    [{ "retry-after": "7", "retry-after-ms": "250" }, 250],
    [{ "retry-after": new Date(Date.now() - 5000).toUTCString() }, 0],
    [{}, undefined],
  ])("reads how long to wait from %j", async (headers, ms) => {
    const error = await failure({ kind: "status", status: 429, headers: headers as Record<string, string> });
    expect(error.retryAfterMs).toBe(ms);
    expect(error.overloaded).toBe(true);
  });

  it.each([
    [408, false],
    [409, false],
    [429, true],
    [500, true],
    [502, true],
    [503, true],
    [504, true],
    [529, true],
  ])("has a status %i tried again; whether with fewer at a time: %s", async (code, overloaded) => {
    expect(await failure(status(code, "no"))).toMatchObject({ kind: "retry", overloaded });
  });

  it.each<Behaviour>([
    { kind: "cut" },
    { kind: "unfinished" },
    { kind: "garbage" },
    { kind: "garbage", body: "" },
    { kind: "garbage", body: "{}" },
    { kind: "garbage", body: "[1, 2" },
  ])("has %j tried again", async (behaviour) => {
    expect((await failure(behaviour)).kind).toBe("retry");
  });

  it("reads an error in a reply of status 200", async () => {
    const body = JSON.stringify({ error: { message: "maximum context length is 10 tokens" } });
    expect((await failure({ kind: "garbage", body })).kind).toBe("contextExceeded");
  });

  it("ends what takes too long", async () => {
    const silent = await failure({ kind: "silent" }, { timeouts: { firstByteMs: 40 } });
    expect(silent).toMatchObject({ kind: "retry", message: expect.stringContaining("no reply within 0.04 s") });
  });

  it("says that nobody listens", async () => {
    // Not the port of a server that was closed, which the next one that asks for any may get.
    const error = await httpModel("http://127.0.0.1:1/v1", "m")
      .generate(request)
      .catch((thrown) => thrown);
    expect(error).toMatchObject({ kind: "retry", message: expect.stringContaining("Is the endpoint running?") });
  });

  it("ends with the caller's reason", async () => {
    await using endpoint = await TestEndpoint.start(() => ({ kind: "silent" }));
    const model = httpModel(endpoint.url, "m");
    const controller = new AbortController();
    const reason = new Error("enough");
    setTimeout(() => controller.abort(reason), 20);
    await expect(model.generate({ ...request, signal: controller.signal })).rejects.toBe(reason);
    await model.close?.();
  });

  it.each([
    ["not an address", {}, /expected an address/],
    ["ftp://host/v1", {}, /http or https/],
    ["http://me:pw@host/v1", {}, /environment variable/],
    ["http://host/v1", { keyEnv: "MISSING", env: {} }, /MISSING is empty/],
  ])("refuses %s", (url, options, message) => {
    expect(() => httpModel(url, "m", options)).toThrow(message);
  });
});

describe("listModels", () => {
  it("reads names and contexts", async () => {
    await using endpoint = await TestEndpoint.start();
    expect(await listModels(endpoint.url)).toEqual([{ name: "test-model", contextWindow: 32_768 }]);
  });

  it("says that there is no list", async () => {
    await using endpoint = await TestEndpoint.start(() => status(404, "no"));
    await expect(listModels(`${endpoint.url}/elsewhere`)).rejects.toThrow(/lists no models .*Name the model/);
  });
});

function status(code: number, message: string): Behaviour {
  return { kind: "status", status: code, body: JSON.stringify({ error: { message } }) };
}
