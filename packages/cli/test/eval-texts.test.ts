/** `llmeff eval texts` against an endpoint of this machine, and chats made of what it wrote. */
import { existsSync } from "node:fs";
import { Random } from "@llmeff/data";
import { type TextKey, writeText } from "@llmeff/longcontext";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Asked, type Behaviour, TestEndpoint } from "../../../test/openai-endpoint.js";
import { Workplace } from "./harness.js";

let place: Workplace;
beforeEach(async () => {
  place = await Workplace.create();
});
afterEach(() => place[Symbol.asyncDispose]());

const random = new Random(1, "eval texts");

/** Writes as templates do, but is too busy for some requests at first. */
function author({ prompt, times }: Asked): Behaviour {
  const [, format, topic] = /^Write an? (.+?) about (.+) in the plain style/.exec(prompt)!;
  const text = writeText(random, { format, topic, style: "plain" } as TextKey);
  return times === 1 && prompt.length % 5 === 0
    ? { kind: "status", status: 429, headers: { "retry-after": "0" } }
    : { kind: "answer", text, delayMs: 1 };
}

const texts = (url: string, ...more: string[]) => [
  ...["eval", "texts", "--model", url, "--out", "pool.jsonl", "--topics", "6", "--per-key", "3"],
  ...["--formats", "poem,letter", ...more],
];
const entries = async () =>
  (await place.read("pool.jsonl"))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { text: string });

describe("llmeff eval texts", () => {
  it("has a model write every text, of which chats are then made", async () => {
    await using endpoint = await TestEndpoint.start(author);
    const { code, stdout, stderr } = await place.run(texts(endpoint.url));
    expect(code, stderr).toBe(0);
    expect(stderr).toContain("36 texts, if none is there yet and every first reply is taken: 36 requests");
    expect(stdout).toMatch(/^36 texts \(\d+ replies now; /);
    expect(existsSync(place.path("pool.jsonl.lock"))).toBe(false);
    const written = new Set((await entries()).map(({ text }) => text));
    expect(written.size).toBe(36);

    const mrcr = ["--task", "mrcr_2", "--lengths", "12k", "--samples", "2", "--tokenizer", "utf8-bytes"];
    const run = await place.run(["eval", "run", "--model", "mock:oracle", ...mrcr, "--texts", "pool.jsonl"]);
    expect(run, run.stderr).toMatchObject({ code: 0, stdout: expect.stringMatching(/mrcr_2 +2 +100\.0 %/) });
    const samples = (await place.read("runs", "eval", "samples.jsonl")).trimEnd().split("\n");
    for (const line of samples) {
      const { messages } = JSON.parse(line) as { messages: { role: string; content: string }[] };
      const replies = messages.filter(({ role }) => role === "assistant");
      expect(replies.length).toBeGreaterThan(5);
      expect(replies.every(({ content }) => written.has(content))).toBe(true);
    }
    expect((await place.run(["eval", "check", "runs/eval/samples.jsonl"])).stdout).toContain("2 of 2");
    const templates = await place.run(["eval", "run", "--model", "mock:oracle", ...mrcr]);
    expect(templates).toMatchObject({ code: 2, stderr: expect.stringContaining("other settings (texts)") });
    const long = await place.run([
      "eval",
      "generate",
      ...mrcr,
      "--lengths",
      "1M",
      "--texts",
      "pool.jsonl",
      "--out",
      "x",
    ]);
    expect(long).toMatchObject({ code: 2, stderr: expect.stringContaining("Give more text or a smaller budget") });
  });

  it("asks for nothing that is there, and goes on after Ctrl-C and where more is wanted", async () => {
    await using endpoint = await TestEndpoint.start(author);
    const stopped = await place.run(texts(endpoint.url), { interruptAt: "texts  " });
    expect(stopped).toMatchObject({ code: 130, stderr: expect.stringContaining("to go on") });
    const before = await entries();
    expect(before.length).toBeLessThan(36);
    expect((await place.run(texts(endpoint.url))).code).toBe(0);
    expect((await entries()).slice(0, before.length)).toEqual(before);
    const asked = endpoint.tally.requests;
    const again = await place.run(texts(endpoint.url, "--json"));
    expect(JSON.parse(again.stdout)).toMatchObject({ asked: 0, texts: 36, missing: 0 });
    expect(endpoint.tally.requests).toBe(asked);
    const more = await place.run(texts(endpoint.url, "--per-key", "4", "--json"));
    expect(JSON.parse(more.stdout)).toMatchObject({ texts: 48, missing: 0 });
  });

  it("stops before it costs too much, also when it is started again", async () => {
    await using endpoint = await TestEndpoint.start(author);
    const limits = ["--price", "1,2", "--max-cost", "0.012", "--json"];
    for (let round = 0; round < 2; round++) {
      const { code, stdout, stderr } = await place.run(texts(endpoint.url, ...limits));
      expect({ code, stderr }).toMatchObject({ code: 3, stderr: expect.stringContaining("stopped by --max-cost") });
      const { usage } = JSON.parse(stdout) as { usage: { cost: number; promptTokens: number } };
      expect(usage.cost).toBeLessThanOrEqual(0.012);
      expect(usage.cost).toBeGreaterThan(0.005);
    }
    const { promptTokens, completionTokens } = endpoint.tally;
    expect((promptTokens + 2 * completionTokens) / 1e6).toBeLessThanOrEqual(0.012);
  });

  it("gives up where a model writes nothing of use, and counts what that took when it is started again", async () => {
    await using endpoint = await TestEndpoint.start(() => ({ kind: "answer", text: "No." }));
    const { code, stderr } = await place.run(texts(endpoint.url));
    expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringContaining("gave no valid ") });
    const { requests } = endpoint.tally;
    expect(new Set(endpoint.asked.map(({ body }) => body.seed)).size).toBe(requests);
    // Enough for one request if nothing had been spent.
    const again = await place.run(texts(endpoint.url, "--max-tokens", "1300", "--json"));
    expect(again.code).toBe(3);
    expect(JSON.parse(again.stdout)).toMatchObject({ asked: 0, usage: { requests } });
  });

  it("leaves a file alone that is no pool of texts", async () => {
    await using endpoint = await TestEndpoint.start(author);
    await place.write("pool.jsonl", "dear diary\n");
    const { code, stderr } = await place.run(texts(endpoint.url));
    expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringContaining("is no pool of texts: line 1") });
    expect(await place.read("pool.jsonl")).toBe("dear diary\n");
    expect(endpoint.tally.requests).toBe(0);
  });

  it("moves what breaks a rule out of the pool, and tells where", async () => {
    await using endpoint = await TestEndpoint.start(author);
    await place.run(texts(endpoint.url));
    const [first] = await entries();
    const broken = `${JSON.stringify({ ...first, text: "No." })}\n`;
    await place.write("pool.jsonl", `${broken}${await place.read("pool.jsonl")}`);
    const { code, stderr } = await place.run(texts(endpoint.url));
    expect({ code, stderr }).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/texts that broke a rule: 1; .*pool\.jsonl\.dropped/),
    });
    expect(await place.read("pool.jsonl.dropped")).toBe(broken);
  });

  it.each([
    [["--formats", "opera"], /no format "opera"\. There are: poem, /],
    [["--styles", "loud"], /no style "loud"/],
    [["--topics", "100000"], /topics must be/],
    [["--max-cost", "0"], /expected a positive number/],
  ])("refuses %j", async (more, message) => {
    await using endpoint = await TestEndpoint.start(author);
    const { code, stderr } = await place.run(texts(endpoint.url, ...more));
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
    expect(endpoint.tally.requests).toBe(0);
  });
});

it("refuses texts for tasks that have no chats", async () => {
  await place.write("pool.jsonl", "");
  const argv = ["eval", "generate", "--task", "idk", "--texts", "pool.jsonl", "--out", "set.jsonl"];
  expect(await place.run(argv)).toMatchObject({ code: 2, stderr: expect.stringContaining("none of these tasks") });
});
