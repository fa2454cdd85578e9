import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Random } from "@llmeff/data";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { checkSample } from "../check/check-sample.js";
import { HaystackTooShortError } from "../errors.js";
import { type EvalModel, type GenResult, ModelError } from "../models/eval-model.js";
import { standIn } from "../models/stand-ins.js";
import { mrcr } from "../tasks/mrcr/mrcr.js";
import { type TextKey, writeText } from "./text.js";
import { keyName, readTextPool } from "./text-pool.js";
import { TWEAKS, writeTextPool } from "./write-text-pool.js";

let folder = "";
let path = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "llmeff-pool-"));
  path = join(folder, "pool.jsonl");
});
afterEach(() => rmSync(folder, { recursive: true }));

const keys: TextKey[] = ["quiet ponds", "blue doors", "old coins"].flatMap((topic) =>
  (["poem", "letter", "essay"] as const).map((format) => ({ format, topic, style: "plain" as const })),
);
const random = new Random(1, "pool");
const refusals = ["", "No.", "I'm sorry, I can't write that for you. ".repeat(8), "word ".repeat(600)];

/** A model that writes as templates do, but every third reply is of no use. */
function writer(script: { calls: number; fail?: number } = { calls: 0 }) {
  return standIn("writer", ({ messages }) => {
    script.calls++;
    if (script.calls === script.fail) throw new Error("line cut");
    if (script.calls % 3 === 0) return refusals[(script.calls / 3) % refusals.length]!;
    const key = keys.find(({ format, topic }) => messages![0]!.content.includes(`${format} about ${topic}`))!;
    return `\n${writeText(random, key).replace("\n", "\n\n")}  \n`;
  });
}
const options = { keys, perKey: 4, date: () => "2026-01-02T03:04:05.000Z" };
const entries = () => readFileSync(path, "utf8").trimEnd().split("\n");
/** The lines of replies of which no text came have no key. */
const written = () => entries().filter((line) => "key" in JSON.parse(line));

describe("writeTextPool", () => {
  it("asks until every key has its texts, and keeps only valid ones", async () => {
    const script = { calls: 0 };
    const { asked, texts } = await writeTextPool(writer(script), path, options);
    expect(texts).toBe(36);
    expect(asked).toBe(script.calls);
    expect(asked).toBeGreaterThan(36);
    const all = entries().map((line) => JSON.parse(line));
    expect(all).toHaveLength(36);
    expect(new Set(all.map(({ text }) => text)).size).toBe(36);
    expect(all[5]).toMatchObject({
      key: keys[1],
      tweak: "as a warning",
      model: "writer",
      date: "2026-01-02T03:04:05.000Z",
    });
    for (const { text } of all) expect(text).not.toMatch(/\n\n|^\s|\s$/);
  });

  it("goes on where it was stopped, and asks for nothing that is there", async () => {
    await expect(writeTextPool(writer({ calls: 0, fail: 20 }), path, options)).rejects.toThrow("line cut");
    const before = entries();
    expect(before.length).toBeGreaterThan(10);
    appendFileSync(path, '{"key":{"format":"poem","topic":"quiet po');
    const { texts } = await writeTextPool(writer(), path, options);
    expect(texts).toBe(36);
    expect(entries().slice(0, before.length)).toEqual(before);
    expect(await writeTextPool(writer(), path, options)).toMatchObject({ asked: 0, texts: 36, missing: 0 });
  });

  it("writes entries anew that break a rule", async () => {
    await writeTextPool(writer(), path, options);
    const [first, second, ...rest] = entries();
    const broken = { ...JSON.parse(first!), text: "I am sorry, but as an AI I do not write. ".repeat(10).trim() };
    writeFileSync(path, `${[JSON.stringify(broken), second, second, ...rest].join("\n")}\n`);
    const { texts } = await writeTextPool(writer(), path, options);
    expect(texts).toBe(36);
    expect(entries()).not.toContain(JSON.stringify(broken));
    expect(entries().filter((line) => line === second)).toHaveLength(1);
    expect(readFileSync(`${path}.dropped`, "utf8")).toBe(`${JSON.stringify(broken)}\n${second}\n`);
  });

  it.each([
    ["notes", "dear diary\nno more of this\n", 1],
    ["notes without an end", "dear diary", 1],
    ["one line of JSON", '{"key":"value"}', 1],
    ["a part of a line in the midst", '{"key":{"format":"po\n{"key":{"format":"po', 1],
    ["a line that ends early", '\n{"key":{"format":"po\n', 2],
  ])("leaves a file alone that holds %s", async (_, content, line) => {
    writeFileSync(path, content);
    await expect(writeTextPool(writer(), path, options)).rejects.toMatchObject({
      code: "ERR_FORMAT",
      message: expect.stringContaining(`pool.jsonl is no pool of texts: line ${line} `),
    });
    expect(readFileSync(path, "utf8")).toBe(content);
    expect(existsSync(`${path}.dropped`)).toBe(false);
  });

  it("leaves a pool alone that holds another line", async () => {
    await writeTextPool(writer(), path, options);
    appendFileSync(path, "{}\n");
    const before = readFileSync(path, "utf8");
    await expect(writeTextPool(writer(), path, { ...options, perKey: 5 })).rejects.toThrow(
      /no pool of texts: line 37 /,
    );
    expect(readFileSync(path, "utf8")).toBe(before);
  });

  it("draws every reply with a seed of its own", async () => {
    const seeds: unknown[] = [];
    const writing = writer();
    const generate: EvalModel["generate"] = (request) => {
      seeds.push(request.seed);
      return writing.generate(request);
    };
    const { asked } = await writeTextPool({ ...writing, generate }, path, options);
    expect(seeds).toHaveLength(asked);
    expect(new Set(seeds).size).toBe(asked);
    for (const seed of seeds) expect(seed).toSatisfy((it) => Number.isInteger(it) && it >= 0 && it < 2 ** 31);
  });

  it("asks for the tweaks first that a key has the fewest of", async () => {
    const poem = { ...options, keys: keys.slice(0, 1), perKey: 12 };
    const tweaks = () => entries().map((line) => (JSON.parse(line) as { tweak: string }).tweak);
    await writeTextPool(writer(), path, poem);
    expect(tweaks()).toEqual([...TWEAKS, ...TWEAKS.slice(0, 2)]);
    const left = entries().filter((_, i) => i !== 2 && i !== 7);
    writeFileSync(path, `${left.join("\n")}\n`);
    await writeTextPool(writer(), path, poem);
    expect(tweaks().slice(10)).toEqual([TWEAKS[2], TWEAKS[7]]);
    await writeTextPool(writer(), path, { ...poem, perKey: 14 });
    expect(tweaks().slice(12)).toEqual([TWEAKS[2], TWEAKS[3]]);
  });

  it("gives a key up after so many tries, keeping the rest", async () => {
    const deaf = standIn("deaf", () => "No.");
    await expect(writeTextPool(deaf, path, { ...options, attempts: 3 })).rejects.toThrow(
      /no valid poem about quiet ponds in 3/,
    );
    await expect(writeTextPool(deaf, path, { ...options, perKey: 0 })).rejects.toThrow(/perKey must be/);
  });
});

describe("writeTextPool within limits", () => {
  /** Tells what each reply took: 100 and 200 tokens, at prices of 1 and 2 a million 0.0005. */
  function paid(behave: (call: number) => GenResult["finish"] | ModelError = () => "stop") {
    const script = { calls: 0, active: 0, most: 0 };
    const write = writer();
    const model: EvalModel = {
      ...write,
      async generate(request) {
        script.most = Math.max(script.most, ++script.active);
        try {
          const outcome = behave(++script.calls);
          await new Promise(setImmediate);
          if (outcome instanceof ModelError) throw outcome;
          const result = await write.generate(request);
          return { ...result, finish: outcome, usage: { promptTokens: 100, completionTokens: 200 } };
        } finally {
          script.active--;
        }
      },
    };
    return { model, script };
  }
  const prices = { input: 1, output: 2 };

  it("stops before it costs more than it may, over all calls", async () => {
    // A request may cost 1,024 tokens of reply, 0.002, and its prompt, a token a byte.
    const spending = { maxCost: 0.01 };
    const first = await writeTextPool(paid().model, path, { ...options, prices, spending });
    expect(first).toMatchObject({ stopped: "spending", texts: written().length, missing: 36 - written().length });
    expect(first.usage.cost).toBeCloseTo(0.0005 * first.asked, 12);
    expect(first.usage.cost).toBeLessThanOrEqual(0.01);
    expect(first.usage.cost).toBeGreaterThan(0.007);
    // What the last text took is known from the file, so that nothing more is asked.
    expect(entries().reduce((sum, line) => sum + JSON.parse(line).took.cost, 0)).toBeGreaterThan(0.007);
    const again = await writeTextPool(paid().model, path, { ...options, prices, spending });
    expect(again).toMatchObject({ asked: 0, stopped: "spending" });
    const more = await writeTextPool(paid().model, path, { ...options, prices, spending: { maxCost: 1 } });
    expect(more).toMatchObject({ texts: 36, missing: 0 });
    expect(more.stopped).toBeUndefined();
  });

  it("counts what was paid for no text, over all calls", async () => {
    const useless = () => paid(() => "length").model;
    for (let round = 1; round <= 2; round++) {
      await expect(writeTextPool(useless(), path, { ...options, prices, attempts: 3 })).rejects.toThrow(/in 3 tries/);
      expect(entries()).toHaveLength(round);
    }
    expect(JSON.parse(entries()[1]!)).toEqual({
      took: {
        requests: 3,
        promptTokens: 300,
        completionTokens: 600,
        cachedTokens: 0,
        reasoningTokens: 0,
        cost: 0.0015,
      },
    });
    // 0.003 is spent, and a request may cost more than 0.002.
    const spending = { maxCost: 0.005 };
    const stopped = await writeTextPool(useless(), path, { ...options, prices, spending });
    expect(stopped).toMatchObject({ asked: 0, stopped: "spending", usage: { requests: 6 } });
    const { usage } = await writeTextPool(paid().model, path, { ...options, prices, spending: { maxCost: 1 } });
    const told = entries().map((line) => JSON.parse(line) as { took: { requests: number } });
    expect(told).toHaveLength(38);
    expect(told.reduce((sum, { took }) => sum + took.requests, 0)).toBe(usage.requests);
    // The chats of the file have its texts alone.
    expect((await readTextPool(path)).open(2).topics).toHaveLength(3);
  });

  it("counts replies before an interruption", async () => {
    const stop = new AbortController();
    const { model } = paid((call) => {
      if (call === 2) stop.abort();
      return "length";
    });
    const { usage } = await writeTextPool(model, path, { ...options, signal: stop.signal });
    expect(usage.requests).toBe(2);
    expect(entries().map((line) => JSON.parse(line).took.requests)).toEqual([2]);
  });

  it("counts what entries took that break a rule", async () => {
    const first = await writeTextPool(paid().model, path, { ...options, prices });
    const lines = entries();
    const broken = JSON.stringify({ ...JSON.parse(lines[0]!), text: "Too short." });
    writeFileSync(path, `${[broken, ...lines.slice(1)].join("\n")}\n`);
    const again = await writeTextPool(paid().model, path, { ...options, prices });
    expect(again).toMatchObject({ texts: 36, dropped: 1 });
    expect(again.usage.requests).toBe(first.usage.requests + again.asked);
    expect(readFileSync(`${path}.dropped`, "utf8")).toBe(`${broken}\n`);
    expect(await writeTextPool(paid().model, path, { ...options, prices })).toMatchObject({
      asked: 0,
      dropped: 0,
      usage: again.usage,
    });
  });

  it("tries again what failed in passing, and takes refusals and what was cut off for no text", async () => {
    const passing = new ModelError("retry", "busy", { status: 429, overloaded: true });
    const refused = new ModelError("refused", "no");
    const trouble = [passing, "length", "filter", refused, passing] as const;
    const { model, script } = paid((call) => trouble[call - 1] ?? "stop");
    const retries = { maxRetries: 2, baseMs: 0 };
    const { asked, texts } = await writeTextPool(model, path, { ...options, perKey: 1, retries, attempts: 8 });
    expect(texts).toBe(9);
    // Of the calls two brought no reply.
    expect(asked).toBe(script.calls - 2);
  });

  it("ends at a failure for good, and keeps what there is", async () => {
    const { model } = paid((call) => (call === 10 ? new ModelError("stop", "wrong key") : "stop"));
    await expect(writeTextPool(model, path, options)).rejects.toThrow("wrong key");
    expect(entries().length).toBeGreaterThan(4);
    expect((await writeTextPool(writer(), path, options)).texts).toBe(36);
  });

  it("ends where it is interrupted, and asks for several texts at a time if it may", async () => {
    const stop = new AbortController();
    const { model, script } = paid((call) => {
      if (call === 12) stop.abort();
      return "stop";
    });
    const many = { ...options, signal: stop.signal, concurrency: { start: 4, max: 4 } };
    const { stopped, texts, missing } = await writeTextPool(model, path, many);
    expect({ stopped, sum: texts + missing }).toEqual({ stopped: "interrupted", sum: 36 });
    expect(script.most).toBe(4);
    expect(texts).toBe(written().length);
    expect(script.calls).toBeLessThan(20);
    const whole = await writeTextPool(writer(), path, { ...options, concurrency: { max: 8 } });
    expect(whole.texts).toBe(36);
    const lines = written().map((line) => JSON.parse(line).key);
    for (const key of keys) expect(lines.filter((other) => keyName(other) === keyName(key))).toHaveLength(4);
  });

  it("lets no two calls write one file", async () => {
    const both = await Promise.allSettled([1, 2].map(() => writeTextPool(writer(), path, options)));
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    expect(both.find(({ status }) => status === "rejected")).toMatchObject({
      reason: { code: "ERR_LOCKED", message: expect.stringContaining("pool.jsonl is in use") },
    });
    expect(entries()).toHaveLength(36);
  });
});

describe("mrcr on a pool", () => {
  it("takes its replies from the pool, each once, and ends where the pool ends", async () => {
    await writeTextPool(writer(), path, { ...options, perKey: 6 });
    const texts = await readTextPool(path);
    const sample = mrcr({ seed: 1, index: 0, maxTokens: 16_384 }, { needles: 2, texts });
    expect(checkSample(sample).problems).toEqual([]);
    const taken = new Set(entries().map((line) => JSON.parse(line).text));
    const replies = sample.messages.filter(({ role }) => role === "assistant").map(({ content }) => content);
    expect(replies.every((reply) => taken.has(reply))).toBe(true);
    expect(new Set(replies).size).toBe(replies.length);
    expect(() => mrcr({ seed: 1, index: 0, maxTokens: 400_000 }, { needles: 2, texts })).toThrow(HaystackTooShortError);
    expect(() => mrcr({ seed: 1, index: 0, maxTokens: 65_536 }, { needles: 7, texts })).toThrow(
      /7 texts each are needed/,
    );
    expect(mrcr({ seed: 1, index: 0, maxTokens: 16_384 }, { needles: 2 }).id).not.toBe(sample.id);
  });

  it("refuses a file that holds something else", async () => {
    writeFileSync(path, '{"key":{"format":"opera"}}\n');
    await expect(readTextPool(path)).rejects.toThrow(/line 1: expected an entry/);
    await expect(readTextPool(join(folder, "none"))).rejects.toThrow(/no such file/);
  });
});
