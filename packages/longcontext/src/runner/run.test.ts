import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Behaviour, TestEndpoint, tokensOf } from "../../../../test/openai-endpoint.js";
import { plainSample, plainSamples, scorePlain } from "../../test/samples.js";
import { numberOf, trouble } from "../../test/trouble.js";
import { type EvalModel, ModelError } from "../models/eval-model.js";
import { httpModel } from "../models/http-model.js";
import type { Clock } from "./clock.js";
import { costOf } from "./cost.js";
import { lockFolder } from "./lock.js";
import { folderCache } from "./response-cache.js";
import type { ResultRecord } from "./result.js";
import { quarantineFile, readResults, resultsFile } from "./results-file.js";
import { type RunOptions, runEvaluation } from "./run.js";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "llmeff-run-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Waits of a minute take no time; chance is fixed. */
function fastClock(): Clock & { slept: number[] } {
  let time = 0;
  const slept: number[] = [];
  return {
    slept,
    now: () => time,
    random: () => 0.5,
    async sleep(ms, signal) {
      signal?.throwIfAborted();
      slept.push(ms);
      time += ms;
      await new Promise((resolve) => setImmediate(resolve));
      signal?.throwIfAborted();
    },
  };
}

function options(model: EvalModel, more: Partial<RunOptions> = {}): RunOptions {
  return {
    folder,
    models: [{ model }],
    samples: () => plainSamples(10),
    score: scorePlain,
    cache: folderCache(join(folder, "cache")),
    clock: fastClock(),
    ...more,
  };
}

async function records(): Promise<ResultRecord[]> {
  const all: ResultRecord[] = [];
  await readResults(join(folder, resultsFile), (record) => all.push(record));
  return all;
}

describe("runEvaluation", () => {
  it("answers or counts each of 500 samples of an endpoint full of trouble, and pays what the server bills", async () => {
    await using endpoint = await TestEndpoint.start(({ prompt, times }) => trouble(prompt, times, "3"));
    const model = httpModel(endpoint.url, "m");
    const prices = { input: 3, output: 15, cachedInput: 0.3 };
    const summary = await runEvaluation(
      options(model, {
        models: [{ model, prices, concurrency: { max: 16 } }],
        samples: () => plainSamples(500),
        giveUpAfter: 20,
      }),
    );
    await model.close?.();
    expect(summary.statuses).toEqual({ ok: 490, truncated: 0, refused: 0, context_exceeded: 0, error: 10 });
    const all = await records();
    expect(new Set(all.map(({ id }) => id)).size).toBe(500);
    expect(all.every(({ status, score }) => (status === "ok" ? score === 1 : score === undefined))).toBe(true);
    expect(all.filter(({ status }) => status === "error").map(({ attempts }) => attempts)).toEqual(Array(10).fill(6));
    expect([...endpoint.tally.answered.values()]).toEqual(Array(490).fill(1));
    const { promptTokens, completionTokens } = endpoint.tally;
    expect(summary.usage).toMatchObject({ requests: 490, promptTokens, completionTokens, cachedTokens: 490 * 3 });
    const billed = costOf({ promptTokens, completionTokens, cachedTokens: 490 * 3 }, prices);
    expect(summary.usage.cost).toBeCloseTo(billed, 9);
    expect(endpoint.mostActive).toBeLessThanOrEqual(16);
  });

  it("goes on where it stopped, asking nothing again", async () => {
    await using endpoint = await TestEndpoint.start();
    const model = httpModel(endpoint.url, "m");
    await runEvaluation(options(model, { limit: 4 }));
    expect(endpoint.tally.requests).toBe(4);
    const summary = await runEvaluation(options(model));
    expect(endpoint.tally.requests).toBe(10);
    expect(summary).toMatchObject({ skipped: 4, written: 6, usage: { requests: 10 } });
    await runEvaluation(options(model));
    expect(endpoint.tally.requests).toBe(10);
    await model.close?.();
  });

  it("drops a torn last line and finds its reply in the cache", async () => {
    await using endpoint = await TestEndpoint.start();
    const model = httpModel(endpoint.url, "m");
    const first = await runEvaluation(options(model));
    const path = join(folder, resultsFile);
    const text = await readFile(path, "utf8");
    await writeFile(path, text.slice(0, -40));
    const summary = await runEvaluation(options(model));
    expect(summary).toMatchObject({ skipped: 9, written: 1, fromCache: 1, quarantined: 0, usage: first.usage });
    expect(endpoint.tally.requests).toBe(10);
    expect(await records()).toHaveLength(10);
    await model.close?.();
  });

  it("keeps replies with every kind of line end in one line", async () => {
    const text = "number0\u2028number0\u2029\u0085\r\n\ud800";
    await using endpoint = await TestEndpoint.start(() => ({ kind: "answer", text }));
    const model = httpModel(endpoint.url, "m");
    await runEvaluation(options(model, { limit: 1 }));
    expect(await runEvaluation(options(model, { limit: 1 }))).toMatchObject({ skipped: 1, quarantined: 0 });
    expect((await records())[0]!.text).toBe(text);
    await model.close?.();
  });

  it("puts a damaged line into quarantine and asks its sample again", async () => {
    await using endpoint = await TestEndpoint.start();
    const model = httpModel(endpoint.url, "m");
    const { cache: _, ...uncached } = options(model);
    await runEvaluation(uncached);
    const path = join(folder, resultsFile);
    const lines = (await readFile(path, "utf8")).split("\n");
    const lost = JSON.parse(lines[3]!) as ResultRecord;
    lines[3] = lines[3]!.replace('"status":"ok"', '"status":"okay"');
    lines[5] = "\u0000\u0000garbage";
    await writeFile(path, lines.join("\n"));
    const summary = await runEvaluation(uncached);
    expect(summary).toMatchObject({ skipped: 8, written: 2, quarantined: 2 });
    expect(endpoint.tally.requests).toBe(12);
    expect((await records()).filter(({ id }) => id === lost.id)).toHaveLength(1);
    const kept = (await readFile(join(folder, quarantineFile), "utf8")).trim().split("\n");
    expect(kept.map((line) => (JSON.parse(line) as { line: number }).line)).toEqual([4, 6]);
    await model.close?.();
  });

  it("refuses a folder in use, and one with results of other settings", async () => {
    await using endpoint = await TestEndpoint.start();
    const model = httpModel(endpoint.url, "m");
    const lock = await lockFolder(folder);
    await expect(runEvaluation(options(model))).rejects.toThrow(/in use by process/);
    await lock.release();
    await runEvaluation(options(model, { config: { lengths: [4096] } }));
    await expect(runEvaluation(options(model, { config: { lengths: [8192] } }))).rejects.toThrow(/lengths: \[4096\]/);
    await expect(runEvaluation(options(model, { config: { lengths: [4096] }, temperature: 1 }))).rejects.toThrow(
      /temperature: 0 there, 1 now/,
    );
    const other = httpModel(endpoint.url, "m", { body: { top_p: 0.5 } });
    await expect(runEvaluation(options(other, { config: { lengths: [4096] } }))).rejects.toThrow(/model m:/);
    expect(endpoint.tally.requests).toBe(10);
  });

  it("asks each trial for itself, and all of them once more only where the cache is another", async () => {
    await using endpoint = await TestEndpoint.start();
    const model = httpModel(endpoint.url, "m");
    await runEvaluation(options(model, { trials: 3, seed: 7 }));
    expect(endpoint.tally.requests).toBe(30);
    expect(new Set(endpoint.asked.map(({ body }) => body.seed))).toEqual(new Set([7, 8, 9]));
    expect(new Set(endpoint.asked.map(({ headers }) => headers["idempotency-key"])).size).toBe(30);
    const cache = folderCache(join(folder, "cache"));
    const second = join(folder, "second");
    const summary = await runEvaluation(options(model, { folder: second, trials: 3, seed: 7, cache }));
    expect(summary).toMatchObject({ fromCache: 30, usage: { requests: 0, cost: 0 } });
    expect(endpoint.tally.requests).toBe(30);
    await model.close?.();
  });

  it("runs several models side by side, and takes one more later", async () => {
    await using endpoint = await TestEndpoint.start();
    const [a, b] = ["a", "b"].map((name) => ({ model: httpModel(endpoint.url, name) })) as [
      { model: EvalModel },
      { model: EvalModel },
    ];
    await runEvaluation(options(a.model));
    const summary = await runEvaluation(options(a.model, { models: [a, b] }));
    expect(summary).toMatchObject({ skipped: 10, written: 10 });
    expect(new Set((await records()).map(({ model, id }) => `${model} ${id}`)).size).toBe(20);
  });

  it.each([401, 404])("stops at once at a status %i, and records nothing", async (status) => {
    await using endpoint = await TestEndpoint.start(() => ({ kind: "status", status }));
    const model = httpModel(endpoint.url, "m");
    await expect(runEvaluation(options(model))).rejects.toMatchObject({ kind: "stop" });
    expect(endpoint.tally.requests).toBeLessThanOrEqual(4);
    expect(await records()).toEqual([]);
    await model.close?.();
  });

  it("gives up on an endpoint that is down; the next run asks what was lost", async () => {
    let down = true;
    await using endpoint = await TestEndpoint.start(() =>
      down ? { kind: "status", status: 503 } : { kind: "answer" },
    );
    const model = httpModel(endpoint.url, "m");
    await expect(runEvaluation(options(model))).rejects.toThrow(/5 requests in a row failed.*503/s);
    expect(await records()).toEqual([]);
    down = false;
    expect((await runEvaluation(options(model))).statuses.ok).toBe(10);
    await model.close?.();
  });

  it("counts what isn't an answer: context exceeded, refused, truncated, empty", async () => {
    const behaviours: Behaviour[] = [
      { kind: "status", status: 400, body: '{"error":{"message":"maximum context length is 100 tokens"}}' },
      { kind: "status", status: 400, body: '{"error":{"message":"blocked by content policy"}}' },
      { kind: "answer", text: "I can't", finish: "content_filter" },
      { kind: "answer", finish: "length" },
      { kind: "answer", text: "" },
      { kind: "status", status: 418 },
    ];
    await using endpoint = await TestEndpoint.start(({ prompt }) => behaviours[numberOf(prompt)] ?? { kind: "answer" });
    const model = httpModel(endpoint.url, "m");
    const summary = await runEvaluation(options(model));
    expect(summary.statuses).toEqual({ ok: 5, truncated: 1, refused: 2, context_exceeded: 1, error: 1 });
    const byIndex = new Map((await records()).map((record) => [record.index, record]));
    expect([0, 1, 2, 3, 4, 5].map((i) => byIndex.get(i)!.score)).toEqual([undefined, 0, 0, 1, 0, undefined]);
    expect(endpoint.tally.requests).toBe(10);
    await model.close?.();
  });

  it("asks failed samples again only when it is told to, and with onlyFailed nothing else", async () => {
    let broken = true;
    await using endpoint = await TestEndpoint.start(({ prompt }) =>
      broken && numberOf(prompt) === 3 ? { kind: "status", status: 418 } : { kind: "answer" },
    );
    const model = httpModel(endpoint.url, "m");
    await runEvaluation(options(model, { limit: 6 }));
    broken = false;
    expect(await runEvaluation(options(model, { limit: 6 }))).toMatchObject({ written: 0, skipped: 6 });
    const summary = await runEvaluation(options(model, { onlyFailed: true }));
    expect(summary).toMatchObject({ written: 1, statuses: { ok: 6, error: 0 } });
    await model.close?.();
  });

  it("never goes over its limits on spending, and says that they stopped it", async () => {
    await using endpoint = await TestEndpoint.start(() => ({ kind: "answer", delayMs: 1 }));
    const model = httpModel(endpoint.url, "m");
    const spending = { maxTokens: 400 };
    const summary = await runEvaluation(options(model, { samples: () => plainSamples(100), spending }));
    expect(summary.stopped).toBe("spending");
    const { promptTokens, completionTokens } = endpoint.tally;
    expect(promptTokens + completionTokens).toBeLessThanOrEqual(400);
    expect(summary.usage).toMatchObject({ promptTokens, completionTokens });
    const again = await runEvaluation(options(model, { samples: () => plainSamples(100), spending }));
    expect(again.written).toBe(0);
    await model.close?.();
  });

  it("keeps what was answered when it is interrupted", async () => {
    const controller = new AbortController();
    await using endpoint = await TestEndpoint.start(({ prompt }) => {
      if (numberOf(prompt) === 20) controller.abort();
      return { kind: "answer", delayMs: 2 };
    });
    const model = httpModel(endpoint.url, "m");
    const all = () => plainSamples(100);
    const summary = await runEvaluation(options(model, { samples: all, signal: controller.signal }));
    expect(summary.stopped).toBe("interrupted");
    expect(summary.written).toBe(endpoint.tally.requests);
    await runEvaluation(options(model, { samples: all }));
    expect(endpoint.tally.requests).toBe(100);
    await model.close?.();
  });

  it("says why it ended, whatever becomes of the caller's signal later", async () => {
    const controller = new AbortController();
    await using endpoint = await TestEndpoint.start();
    const model = httpModel(endpoint.url, "m");
    const summary = await runEvaluation(options(model, { signal: controller.signal }));
    controller.abort();
    expect(summary.written).toBe(10);
    expect(summary.stopped).toBeUndefined();
    await model.close?.();
  });

  it("keeps what was asked of all models where the samples break off", async () => {
    await using endpoint = await TestEndpoint.start(() => ({ kind: "answer", delayMs: 20 }));
    const model = httpModel(endpoint.url, "m");
    const whole = httpModel(endpoint.url, "n");
    let sources = 0;
    function* samples() {
      const breaks = sources++ === 0;
      yield* plainSamples(2);
      if (breaks) throw new Error("no more samples");
      yield* plainSamples(100).slice(2);
    }
    const models = [{ model }, { model: whole }];
    await expect(runEvaluation(options(model, { models, samples }))).rejects.toThrow("no more samples");
    const kept = await records();
    expect(kept).toHaveLength(endpoint.tally.requests);
    expect(kept.filter((record) => record.model === "m")).toHaveLength(2);
    expect(kept.length).toBeLessThan(20);
    for (const each of [model, whole]) await each.close?.();
  });

  it("refuses options that no endpoint can have before it asks any", async () => {
    await using endpoint = await TestEndpoint.start();
    const model = httpModel(endpoint.url, "m");
    const models = [{ model }, { model: httpModel(endpoint.url, "n"), concurrency: { max: 0 } }];
    await expect(runEvaluation(options(model, { models }))).rejects.toThrow(/max must be a positive integer/);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(endpoint.tally.requests).toBe(0);
    await model.close?.();
  });

  it("doesn't ask what its own tokenizer shows to be too long for the model", async () => {
    await using endpoint = await TestEndpoint.start();
    const tokenizer = { id: "quarter-bytes", encode: () => [], count: tokensOf };
    const model = httpModel(endpoint.url, "m", { contextWindow: 4096, tokenizer });
    const long = plainSample(1, { budget: { ...plainSample(1).budget, maxTokens: 8192 } });
    const summary = await runEvaluation(options(model, { samples: () => [plainSample(0), long] }));
    expect(summary.statuses).toMatchObject({ ok: 1, context_exceeded: 1 });
    expect(endpoint.tally.requests).toBe(1);
    await model.close?.();
  });

  it("counts tokens itself where the endpoint doesn't", async () => {
    await using endpoint = await TestEndpoint.start(() => ({ kind: "answer", text: "12345678", usage: false }));
    const model = httpModel(endpoint.url, "m");
    await runEvaluation(options(model, { limit: 1 }));
    const [record] = await records();
    expect(record).toMatchObject({ usageEstimated: true, usage: { promptTokens: 7, completionTokens: 2 } });
    await model.close?.();
  });

  it("waits as long as the endpoint asks, and with no retries not at all", async () => {
    await using endpoint = await TestEndpoint.start(({ times }) =>
      times === 1 ? { kind: "status", status: 429, headers: { "retry-after": "33" } } : { kind: "answer" },
    );
    const model = httpModel(endpoint.url, "m");
    const clock = fastClock();
    await runEvaluation(options(model, { limit: 1, clock }));
    expect(clock.slept).toEqual([33_000]);
    const none = { model, retries: { maxRetries: 0 } };
    const summary = await runEvaluation(
      options(model, { folder: join(folder, "b"), models: [none], samples: () => [plainSample(1)] }),
    );
    expect(summary.statuses.error).toBe(1);
    await model.close?.();
  });

  it.each([
    [{ trials: 0 }, /trials/],
    [{ limit: 0 }, /limit/],
    [{ giveUpAfter: 0 }, /giveUpAfter/],
    [{ models: [] }, /different ids/],
    [{ spending: { maxCost: -1 } }, /maxCost/],
  ] as const)("refuses %j", async (bad, message) => {
    const model = httpModel("http://127.0.0.1:1/v1", "m");
    await expect(runEvaluation(options(model, bad as Partial<RunOptions>))).rejects.toThrow(message);
  });

  it("passes on what a scorer throws", async () => {
    await using endpoint = await TestEndpoint.start();
    const model = httpModel(endpoint.url, "m");
    const score = () => {
      throw new ModelError("error", "scorer broke");
    };
    await expect(runEvaluation(options(model, { score }))).rejects.toThrow("scorer broke");
    await model.close?.();
  });
});
