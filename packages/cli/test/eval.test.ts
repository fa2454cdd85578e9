/** `llmeff eval` against an endpoint of this machine, from the first run to the report. */
import { existsSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Asked, type Behaviour, TestEndpoint } from "../../../test/openai-endpoint.js";
import { Workplace } from "./harness.js";

let place: Workplace;
beforeEach(async () => {
  place = await Workplace.create();
});
afterEach(() => place[Symbol.asyncDispose]());

/** Knows the needle as long as the prompt has at most 9,000 tokens. */
function answer({ prompt }: Asked): Behaviour {
  const key = /registry code for ([\w -]+)\?/.exec(prompt)?.[1];
  const value = new RegExp(`for ${key} is (\\d+)\\.`).exec(prompt)?.[1];
  return { kind: "answer", text: prompt.length < 36_000 && value !== undefined ? `It is ${value}.` : "I don't know." };
}

const small = ["--task", "niah_s2,idk", "--lengths", "4k,16k", "--samples", "2"];
const run = (url: string, ...more: string[]) => ["eval", "run", "--model", `${url}#m`, ...small, ...more];

describe("llmeff eval run", () => {
  it("needs an address and nothing else: finds the model, counts as it does, asks, scores, reports", async () => {
    await using endpoint = await TestEndpoint.start(answer);
    const { code, stdout, stderr } = await place.run(["eval", "run", "--model", endpoint.url, ...small]);
    expect({ code, stderr }).toMatchObject({ code: 0, stderr: expect.stringContaining("8 requests") });
    expect(stdout).toMatch(/test-model +niah_s2 +4 +50\.0 % +100\.0 % +0\.0 %/);
    expect(endpoint.tally.requests).toBe(3 + 8);
    for (const name of ["results.jsonl", "samples.jsonl", "report.html", "report.json", "report.csv"]) {
      expect(existsSync(place.path("runs", "eval", name))).toBe(true);
    }
    const html = await place.read("runs", "eval", "report.html");
    expect(html).toContain("depth of the needle by length");
    expect((await place.read("runs", "eval", "report.csv")).split("\r\n")).toHaveLength(10);
    // The endpoint counts four bytes a token, and the samples keep to their lengths by its count.
    const prompts = endpoint.asked.slice(3).map(({ body }) => Buffer.byteLength(JSON.stringify(body.messages)) / 4);
    expect(Math.max(...prompts)).toBeLessThanOrEqual(16_384 - 64);
    expect(Math.max(...prompts)).toBeGreaterThan(0.9 * 16_384);
  });

  it("asks nothing again the second time, and refuses other settings in the same folder", async () => {
    await using endpoint = await TestEndpoint.start(answer);
    await place.run(run(endpoint.url));
    const before = endpoint.tally.requests;
    const again = await place.run(run(endpoint.url));
    expect(again.code).toBe(0);
    expect(again.stdout).toContain("0 results, 8 there before");
    const other = await place.run(run(endpoint.url, "--temperature", "1"));
    expect(other).toMatchObject({ code: 2, stderr: expect.stringContaining("temperature: 0 there, 1 now") });
    expect(endpoint.tally.requests).toBe(before);
  });

  it("goes on after Ctrl-C", async () => {
    await using endpoint = await TestEndpoint.start((asked) => ({ ...answer(asked), delayMs: 5 }) as Behaviour);
    const stopped = await place.run(run(endpoint.url, "--concurrency", "1"), { interruptAt: "eval  " });
    expect(stopped).toMatchObject({ code: 130, stderr: expect.stringContaining("what was answered is kept") });
    const asked = endpoint.tally.requests;
    expect(asked).toBeLessThan(3 + 8);
    expect((await place.run(run(endpoint.url))).code).toBe(0);
    expect(endpoint.tally.requests).toBe(3 + 8);
  });

  it("stops before it costs too much, and says what it cost", async () => {
    await using endpoint = await TestEndpoint.start(answer);
    const { code, stderr, stdout } = await place.run(
      run(endpoint.url, "--price", "1,2", "--max-cost", "0.02", "--json"),
    );
    expect(code).toBe(3);
    expect(stderr).toContain("stopped by --max-cost");
    const { usage } = (JSON.parse(stdout) as { summary: { usage: { cost: number; requests: number } } }).summary;
    expect(usage.cost).toBeLessThanOrEqual(0.02);
    expect(usage.requests).toBeGreaterThan(0);
  });

  it("fails under a threshold, and tells by how much", async () => {
    await using endpoint = await TestEndpoint.start(answer);
    expect((await place.run(run(endpoint.url, "--fail-under", "niah_s2=0.9@4k"))).code).toBe(0);
    const missed = await place.run(run(endpoint.url, "--fail-under", "niah_s2=0.9@16k"));
    expect(missed).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("m has 0.0 % of niah_s2 at 16k, not 90.0 %"),
    });
  });

  it("takes several models into one run, and compares them", async () => {
    await using endpoint = await TestEndpoint.start((asked) =>
      asked.body.model === "bad" ? { kind: "answer", text: "no" } : answer(asked),
    );
    const models = ["--model", `${endpoint.url}#good`, "--model", `${endpoint.url}#bad`];
    expect((await place.run(["eval", "run", ...models, ...small])).code).toBe(0);
    const { stdout } = await place.run(["eval", "compare", "runs/eval"]);
    expect(stdout).toMatch(/niah_s2 +good - bad +4 +50\.0 %/);
  });

  it("says that lengths were counted by another tokenizer than the model's", async () => {
    await using endpoint = await TestEndpoint.start(answer);
    const { code, stderr } = await place.run(run(endpoint.url, "--tokenizer", "utf8-bytes"));
    expect(code).toBe(0);
    expect(stderr).toMatch(/m counts 0\.2\d times the prompt tokens that utf8-bytes does/);
    expect((await place.run(run(endpoint.url, "--out", "auto"))).stderr).not.toContain("times the prompt tokens");
  });

  it("hides needles in a text of the user's, and says when it is too short", async () => {
    await place.write(
      "book.txt",
      Array.from({ length: 4000 }, (_, i) => `Sentence number ${i} of the book.`).join(" "),
    );
    const given = [
      "eval",
      "run",
      "--model",
      "mock:oracle",
      "--task",
      "niah_s2",
      "--samples",
      "1",
      "--haystack",
      "book.txt",
    ];
    expect((await place.run([...given, "--lengths", "8k"])).code).toBe(0);
    expect(await place.read("runs", "eval", "samples.jsonl")).toContain("Sentence number 9 of the book.");
    const short = await place.run([...given, "--lengths", "128k", "--out", "long"]);
    expect(short).toMatchObject({ code: 2, stderr: expect.stringContaining("Give more text or a smaller budget") });
  });

  it("leaves the samples that a folder's answers are to", async () => {
    const run = (...argv: string[]) => place.run(["eval", "run", "--model", "mock:oracle", ...small, ...argv]);
    expect((await run()).code).toBe(0);
    const samples = await place.read("runs", "eval", "samples.jsonl");
    expect(await run("--seed", "7")).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(
        /runs\/eval holds answers to samples made with other settings \(seed\)\. Use another folder/,
      ),
    });
    expect(await place.read("runs", "eval", "samples.jsonl")).toBe(samples);
    expect((await run()).code).toBe(0);
  });

  it("evaluates stand-ins: the oracle knows all", async () => {
    const { code, stdout } = await place.run([
      "eval",
      "run",
      "--model",
      "mock:oracle",
      ...small,
      "--fail-under",
      "idk=1",
    ]);
    expect(stdout).toMatch(/oracle +idk +4 +100\.0 %/);
    expect(code).toBe(0);
  });

  it.each([
    ["no model", [], 2, /name a model with --model/],
    ["a model of no kind", ["--model", "gpt-4"], 2, /expected a model as http/],
    ["an unknown mock", ["--model", "mock:sage"], 2, /there is no mock "sage"/],
    ["an unknown task", ["--model", "mock:oracle", "--task", "chess"], 2, /no task "chess"/],
    ["a length that is too short", ["--model", "mock:oracle", "--lengths", "100"], 2, /Give a larger budget/],
    ["no number for a length", ["--model", "mock:oracle", "--lengths", "4q"], 2, /8192, 8k or 1M/],
    ["a key that isn't there", ["--model", "http://127.0.0.1:1/v1#m", "--key-env", "NO_KEY"], 2, /NO_KEY is empty/],
    ["an endpoint that is down", ["--model", "http://127.0.0.1:1/v1", "--retries", "0"], 1, /Is the endpoint running/],
    ["bad prices", ["--model", "mock:oracle", "--price", "1"], 2, /INPUT,OUTPUT/],
    ["a bad body", ["--model", "mock:oracle", "--body", "[1]"], 2, /JSON object/],
    ["a missing set", ["--model", "mock:oracle", "--set", "none.jsonl"], 1, /there is no such file/],
  ])("refuses %s", async (_, argv, code, message) => {
    const outcome = await place.run(["eval", "run", "--task", "idk", "--lengths", "4k", "--samples", "1", ...argv]);
    expect(outcome.stderr).toMatch(message);
    expect(outcome.code).toBe(code);
  });

  it.each([
    [401, /environment variable/],
    [404, /Check the address/],
  ])("stops at a status %i with what to do", async (status, message) => {
    await using endpoint = await TestEndpoint.start(() => ({ kind: "status", status }));
    const outcome = await place.run(run(endpoint.url));
    expect(outcome).toMatchObject({ code: 1, stderr: expect.stringMatching(message) });
    expect(endpoint.tally.requests).toBe(1);
  });

  it("counts what an endpoint can't answer, and is incomplete then", async () => {
    await using endpoint = await TestEndpoint.start((asked) =>
      asked.prompt.length > 36_000
        ? { kind: "status", status: 400, body: '{"error":{"message":"maximum context length is 8192 tokens"}}' }
        : asked.prompt.includes("Choices:")
          ? { kind: "status", status: 418 }
          : answer(asked),
    );
    const { code, stdout } = await place.run(run(endpoint.url, "--json"));
    expect(code).toBe(3);
    const { statuses } = JSON.parse(stdout) as { statuses: Record<string, number> };
    expect(statuses).toEqual({ ok: 2, truncated: 0, refused: 0, context_exceeded: 4, error: 2 });
  });

  it("keeps the key out of all that it writes", async () => {
    await using endpoint = await TestEndpoint.start(() => ({
      kind: "status",
      status: 401,
      body: '{"error":{"message":"Incorrect key: k-0123456789"}}',
    }));
    const outcome = await place.run(run(endpoint.url), { env: { LLMEFF_API_KEY: "k-0123456789" } });
    expect(endpoint.asked[0]!.headers.authorization).toBe("Bearer k-0123456789");
    expect(outcome.stderr).toContain("LLMEFF_API_KEY");
    expect(outcome.stdout + outcome.stderr).not.toContain("k-0123456789");
  });
});

describe("llmeff eval", () => {
  it("generates, checks and estimates without a model", async () => {
    const made = await place.run(["eval", "generate", ...small, "--out", "set.jsonl"]);
    expect(made).toMatchObject({ code: 0, stdout: expect.stringContaining("8 samples") });
    expect((await place.run(["eval", "check", "set.jsonl"])).stdout).toContain("8 of 8 samples are right");
    const lines = (await place.read("set.jsonl")).split("\n");
    const wrong = JSON.parse(lines[0]!) as { target: string[] };
    await place.write("wrong.jsonl", [JSON.stringify({ ...wrong, target: ["1"] }), ...lines.slice(1)].join("\n"));
    const checked = await place.run(["eval", "check", "wrong.jsonl"]);
    expect(checked).toMatchObject({
      code: 1,
      stdout: expect.stringContaining("7 of 8"),
      stderr: expect.stringContaining("the messages give"),
    });
    const estimated = await place.run([
      "eval",
      "estimate",
      "--set",
      "set.jsonl",
      "--price",
      "1,2",
      "--trials",
      "3",
      "--json",
    ]);
    const estimate = JSON.parse(estimated.stdout) as {
      requests: number;
      promptTokens: number;
      completionTokens: number;
      cost: number;
    };
    expect(estimate.requests).toBe(24);
    expect(estimate.cost).toBeCloseTo((estimate.promptTokens + 2 * estimate.completionTokens) / 1e6, 12);
    expect((await place.run(["eval", "estimate", ...small])).stdout).toMatch(/^8 requests/);
  });

  it("scores again, and reports several folders together", async () => {
    await place.run(["eval", "run", "--model", "mock:oracle", ...small, "--out", "a"]);
    await place.run(["eval", "run", "--model", "mock:random", ...small, "--out", "b"]);
    const results = (await place.read("a", "results.jsonl")).replaceAll('"score":1', '"score":0');
    await place.write("a/results.jsonl", results);
    const scored = await place.run(["eval", "score", "a"]);
    expect(scored).toMatchObject({ code: 0, stdout: "8 replies scored, 8 with another score than before.\n" });
    const { code, stdout } = await place.run(["eval", "report", "a", "b", "--out", "both.html"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/oracle[\s\S]*random/);
    expect(await place.read("both.html")).toContain("Differences on the same samples");
  });

  it("imports sets and results", async () => {
    await place.write("ruler.jsonl", JSON.stringify({ input: "The code is 5.", outputs: ["5"], length: 100 }));
    const asSet = await place.run([
      "eval",
      "import",
      "ruler",
      "ruler.jsonl",
      "--task",
      "niah_single_1",
      "--out",
      "set.jsonl",
    ]);
    expect(asSet).toMatchObject({ code: 0, stdout: expect.stringContaining("1 samples") });
    expect((await place.run(["eval", "run", "--model", "mock:oracle", "--set", "set.jsonl"])).stdout).toMatch(
      /niah_single_1 +1 +100\.0 %/,
    );
    const grid = [0, 100].map((depth_percent) => ({ context_length: 1000, depth_percent, score: 10 }));
    await place.write("grid.json", grid);
    const asResults = await place.run(["eval", "import", "niah", "grid.json", "--model", "m", "--out", "grid"]);
    expect(asResults).toMatchObject({ code: 0, stdout: expect.stringContaining("2 results") });
    expect((await place.run(["eval", "report", "grid"])).stdout).toMatch(/m +niah_judged +2 +100\.0 %/);
    const twice = await place.run(["eval", "import", "niah", "grid.json", "--model", "m", "--out", "grid"]);
    expect(twice).toMatchObject({ code: 2, stderr: expect.stringContaining("holds results already") });
    expect((await place.run(["eval", "import", "niah", "grid.json", "--out", "x"])).code).toBe(2);
  });

  it("lists the tasks in its help", async () => {
    const { code, stdout } = await place.run(["eval", "run", "--help"]);
    expect(code).toBe(0);
    for (const name of ["latent_list", "mrcr_8", "niah_grid", "conlang_full", "Groups: "])
      expect(stdout).toContain(name);
  });
});
