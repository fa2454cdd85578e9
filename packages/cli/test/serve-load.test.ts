/** The server under load, and clients that leave, wait, or don't read. */

import diagnostics from "node:diagnostics_channel";
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { connect, type Socket } from "node:net";
import { memory } from "@llmeff/tensor";
import { OpenAI } from "openai";
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import type { Workplace } from "./harness.js";
import { makePlace, Served, until } from "./served.js";

let place: Workplace;
beforeAll(async () => {
  place = await makePlace();
});
afterAll(() => place[Symbol.asyncDispose]());

const endless = { model: "endless", prompt: "a", max_tokens: 4000 };

describe("64 requests at a time", () => {
  const words = ["Once upon a time", "Lily and Tom went", "The dog", "One day, a big bear", "Mom said"];
  const bodies = Array.from({ length: 64 }, (_, i) => ({
    model: "stories",
    prompt: words[i % words.length]! + " and then".repeat(i % 7),
    max_tokens: 1 + ((i * 13) % 90),
    logprobs: 1,
    ...(i % 3 === 0 ? { temperature: 0 } : { seed: i, temperature: 0.8 + (i % 5) / 10, top_k: 40 }),
    ...(i % 8 === 5 ? { stop: [" the", "."] } : {}),
    ...(i % 4 === 1 ? { n: 2 } : {}),
  }));

  async function ask(client: OpenAI, body: (typeof bodies)[number], stream: boolean) {
    const texts: string[] = [];
    const ends: (string | null)[] = [];
    const reply = await client.completions.create({ ...body, stream });
    for await (const { choices } of "choices" in reply ? [reply] : reply) {
      for (const { index, text, finish_reason } of choices) {
        texts[index] = (texts[index] ?? "") + text;
        ends[index] = finish_reason ?? ends[index] ?? null;
      }
    }
    return { texts, ends };
  }

  it("are all answered, each as if it were alone, whole and streamed", async () => {
    await using served = await Served.start(place.path("stories"));
    const { client } = served;
    const together = await Promise.all(bodies.map((body, i) => ask(client, body, i % 2 === 0)));
    expect(served.model.batch).toMatchObject({ active: 0, waiting: 0 });
    for (const [i, body] of bodies.entries()) {
      const alone = await ask(client, body, i % 2 === 1);
      expect(together[i], `request ${i}`).toEqual(alone);
    }
    expect(served.failures).toEqual([]);
  });
});

describe("clients that leave", () => {
  let served: Served;
  let level: number;
  beforeAll(async () => {
    served = await Served.start(place.path("endless"), { maxSequences: 2 });
    // Rotary tables grow with the longest sequence so far, and stay.
    await served.client.completions.create({ ...endless, prompt: "a".repeat(5000), max_tokens: 1 });
    await until(() => served.model.batch.active === 0);
    level = memory().liveBytes;
  });
  afterAll(() => served[Symbol.asyncDispose]());

  const nothingLeft = async () => {
    const { batch } = served.model;
    await until(() => batch.active === 0 && batch.waiting === 0 && memory().liveBytes === level);
    expect(served.failures).toEqual([]);
  };

  it("free what was kept for them, in the middle of a stream", async () => {
    const stream = await served.client.completions.create({ ...endless, stream: true });
    let parts = 0;
    for await (const _ of stream) {
      if (parts === 3) {
        expect(served.model.batch.active).toBe(1);
        expect(memory().liveBytes).toBeGreaterThan(level);
      }
      if (++parts === 5) break;
    }
    await nothingLeft();
  });

  it("free it when their connection breaks", async () => {
    const socket = await post(served, { ...endless, stream: true, n: 2 });
    await once(socket, "data");
    expect(served.model.batch.active).toBe(2);
    socket.destroy();
    await nothingLeft();
  });

  it("free it while they wait for a whole answer, or for their turn", async () => {
    const leave = new AbortController();
    const asked = Array.from({ length: 4 }, () => served.client.completions.create(endless, { signal: leave.signal }));
    await until(() => served.model.batch.active === 2 && served.model.batch.waiting === 2);
    leave.abort();
    const outcomes = await Promise.allSettled(asked);
    expect(outcomes.map(({ status }) => status)).toEqual(new Array(4).fill("rejected"));
    await nothingLeft();
  });

  it("free it where a reply waits behind another of their connection", async () => {
    const socket = await post(served, { ...endless, stream: true });
    const text = JSON.stringify({ ...endless, stream: true });
    socket.write("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
    socket.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
    await until(() => served.model.batch.active === 2);
    socket.destroy();
    await nothingLeft();
  });

  it("free it before their request has come", async () => {
    const socket = await open(served);
    socket.write(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    );
    socket.end();
    await once(socket.resume(), "close");
    await nothingLeft();
    expect((await served.client.completions.create({ ...endless, max_tokens: 2 })).usage!.completion_tokens).toBe(2);
  });
});

describe("clients that don't read", () => {
  it("get no more than they read, keep nobody waiting, and miss nothing", async () => {
    await using served = await Served.start(place.path("endless"));
    const responses: ServerResponse[] = [];
    const onRequest = (message: unknown) => responses.push((message as { response: ServerResponse }).response);
    diagnostics.subscribe("http.server.request.start", onRequest);
    try {
      const body = { model: "endless", messages: [{ role: "user", content: "a" }], max_tokens: 700, n: 8, seed: 1 };
      const asked = { ...body, logprobs: true, top_logprobs: 20, stream: true };
      const socket = await post(served, asked);
      await until(() => responses[0]?.writableNeedDrain === true);
      const [response] = responses as [ServerResponse];
      const held = response.writableLength;
      expect(held).toBeLessThan(500_000);
      // As long as it stands still, others are answered.
      const other = await served.client.completions.create({ ...endless, max_tokens: 200 });
      expect(other.usage!.completion_tokens).toBe(200);
      // Every other answer may have begun one part more.
      expect(response.writableLength).toBeLessThan(held + 100_000);
      expect(response.writableNeedDrain).toBe(true);
      let text = "";
      socket.setEncoding("utf8").on("data", (piece: string) => {
        text += piece;
      });
      socket.resume();
      await until(() => text.includes("data: [DONE]"));
      socket.destroy();
      const parts = text.split("\n").flatMap((line) => (line.startsWith("data: {") ? [JSON.parse(line.slice(6))] : []));
      const scores = (index: number) =>
        parts
          .filter(({ choices }) => choices[0].index === index)
          .flatMap(({ choices }) => choices[0].logprobs?.content ?? []);
      for (let index = 0; index < 8; index++) expect(scores(index)).toHaveLength(700);
    } finally {
      diagnostics.unsubscribe("http.server.request.start", onRequest);
    }
  });
});

describe("prompts of hundreds of thousands of characters", () => {
  const text = "a long story of a little girl. ".repeat(8000);

  it("hold up nobody while they are divided into tokens, nor after their client has left", async () => {
    await using served = await Served.start(place.path("endless"));
    const stream = await served.client.completions.create({ ...endless, max_tokens: 190_000, stream: true });
    let parts = 0;
    const reading = (async () => {
      for await (const _ of stream) parts++;
    })();
    await until(() => parts > 0);
    const before = parts;
    const asked = { ...endless, prompt: text };
    await expect(served.client.completions.create(asked)).rejects.toMatchObject({ code: "context_length_exceeded" });
    expect(parts).toBeGreaterThan(before + 10);
    const leave = new AbortController();
    const left = served.client.completions.create({ ...asked, prompt: text.repeat(20) }, { signal: leave.signal });
    const next = served.client.completions.create({ ...endless, prompt: text.slice(0, 5000), max_tokens: 1 });
    const seen = parts;
    await until(() => parts > seen + 5);
    leave.abort();
    await expect(left).rejects.toThrow();
    expect((await next).usage).toMatchObject({ prompt_tokens: 5000, completion_tokens: 1 });
    stream.controller.abort();
    await reading;
    await until(() => served.model.batch.active === 0);
    expect(served.failures).toEqual([]);
  });
});

describe("limits", () => {
  it("tell clients to come back when all places are taken, and those that do are answered", async () => {
    await using served = await Served.start(place.path("endless"), { maxSequences: 1, mostSequences: 2 });
    const leave = new AbortController();
    const asked = [1, 2].map(() => served.client.completions.create(endless, { signal: leave.signal }).catch(() => {}));
    await until(() => served.model.batch.active === 1 && served.model.batch.waiting === 1);
    const full = await served.fetch("/completions", endless);
    expect(full.status).toBe(503);
    expect(full.headers.get("retry-after")).toBe("1");
    expect(await full.json()).toMatchObject({ error: { type: "server_error", code: "queue_full" } });
    const patient = new OpenAI({ baseURL: served.url, apiKey: "none", maxRetries: 30 });
    const later = patient.completions.create({ ...endless, max_tokens: 2 });
    leave.abort();
    await Promise.all(asked);
    expect((await later).usage!.completion_tokens).toBe(2);
    const millions = await served.fetch("/completions", { ...endless, prompt: new Array(60_000).fill([1]), n: 128 });
    expect(await millions.json()).toMatchObject({ error: { param: "n" } });
    const never = await served.fetch("/completions", { ...endless, n: 3 });
    expect(never.status).toBe(400);
    expect(await never.json()).toMatchObject({
      error: { param: "n", message: expect.stringContaining("2 at the most") },
    });
  });

  it("end replies that take too long, as a reply or as a stream's last event", async () => {
    const timers = vi.spyOn(globalThis, "setTimeout");
    onTestFinished(() => timers.mockRestore());
    await using served = await Served.start(place.path("endless"), { timeoutSeconds: 599 });
    /** The time of the replies that were begun is over, however fast this machine is. */
    const timeIsOver = () => {
      for (const [end, ms] of timers.mock.calls) if (ms === 599_000) end();
      timers.mockClear();
    };
    const late = { ...endless, max_tokens: 190_000 };
    const reply = served.client.completions.create(late);
    await until(() => served.model.batch.active === 1);
    timeIsOver();
    await expect(reply).rejects.toMatchObject({ status: 504, code: "timeout" });
    const stream = await served.client.completions.create({ ...late, stream: true });
    await expect(async () => {
      let parts = 0;
      for await (const _ of stream) if (++parts === 3) timeIsOver();
    }).rejects.toThrow(/took longer than the 599 s/);
    await until(() => served.model.batch.active === 0);
    const socket = await post(served, { ...late, n: 8, logprobs: 20, stream: true });
    await until(() => served.model.batch.active === 8);
    timeIsOver();
    await until(() => served.model.batch.active === 0);
    socket.destroy();
    expect(served.failures).toEqual([]);
  });
});

describe("a client that reads nothing", () => {
  it("is left after its time, so that others have its places", async () => {
    const timers = vi.spyOn(globalThis, "setTimeout");
    onTestFinished(() => timers.mockRestore());
    await using served = await Served.start(place.path("endless"), { stallSeconds: 59, maxSequences: 4 });
    const many = { ...endless, max_tokens: 190_000, n: 4, logprobs: 20, stream: true };
    const socket = await post(served, many);
    const stalls = () => timers.mock.calls.filter(([, ms]) => ms === 59_000);
    await until(() => stalls().length > 0 && served.model.batch.active === 4);
    const other = served.client.completions.create({ ...endless, max_tokens: 5 });
    await until(() => served.model.batch.waiting === 1);
    for (const [end] of stalls()) end();
    expect((await other).usage!.completion_tokens).toBe(5);
    await until(() => served.model.batch.active === 0);
    if (!socket.destroyed) await once(socket.resume(), "close");
    expect(served.failures).toEqual([]);
  });
});

describe("the end", () => {
  it("lets replies finish that are on their way, and takes no more", async () => {
    await using served = await Served.start(place.path("endless"));
    const reply = served.client.completions.create({ ...endless, max_tokens: 300 });
    await until(() => served.model.batch.active === 1);
    const closed = served.service.close(600);
    await expect(fetch(`${served.url}/models`)).rejects.toThrow();
    expect((await reply).usage!.completion_tokens).toBe(300);
    await closed;
  });

  it("comes to those that take too long", async () => {
    await using served = await Served.start(place.path("endless"));
    const stream = await served.client.completions.create({ ...endless, max_tokens: 190_000, stream: true });
    const idle = await open(served);
    await until(() => served.model.batch.active === 1);
    const closed = served.service.close(0.05);
    await expect(async () => {
      for await (const _ of stream);
    }).rejects.toThrow(/server is stopping/);
    await closed;
    if (!idle.destroyed) await once(idle.resume(), "close");
    expect(served.model.batch.active).toBe(0);
  });

  it("comes to those whose request is still on its way", async () => {
    await using served = await Served.start(place.path("endless"));
    const socket = await open(served);
    socket.write(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    );
    await served.fetch("/completions", "{}");
    await served.service.close(0.05);
    if (!socket.destroyed) await once(socket.resume(), "close");
  });

  it("is told on connections that are still open", async () => {
    await using served = await Served.start(place.path("endless"));
    const busy = served.client.completions.create({ ...endless, max_tokens: 3000 }).catch(() => {});
    const socket = await open(served);
    socket.write("GET /health HTTP/1.1\r\nHost: x\r\n");
    await until(() => served.model.batch.active === 1);
    const closed = served.service.close(600);
    socket.write("\r\n");
    const [text] = (await once(socket.setEncoding("utf8"), "data")) as [string];
    expect(text).toMatch(/^HTTP\/1.1 503 [\s\S]*connection: close[\s\S]*"code":"server_stopping"/i);
    await Promise.all([busy, closed]);
  });
});

async function open({ service }: Served): Promise<Socket> {
  const { hostname, port } = new URL(service.url);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
}

/** Sends a request by hand, on a connection that nobody reads until it is resumed. */
async function post(served: Served, body: object): Promise<Socket> {
  const socket = await open(served);
  const text = JSON.stringify(body);
  const path = "messages" in body ? "/v1/chat/completions" : "/v1/completions";
  socket.write(`POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n`);
  socket.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  return socket;
}
