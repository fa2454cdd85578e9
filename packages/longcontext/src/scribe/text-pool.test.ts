import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Random } from "@llmeff/data";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { checkSample } from "../check/check-sample.js";
import { HaystackTooShortError } from "../errors.js";
import { standIn } from "../models/stand-ins.js";
import { mrcr } from "../tasks/mrcr/mrcr.js";
import { type TextKey, writeText } from "./text.js";
import { readTextPool } from "./text-pool.js";
import { writeTextPool } from "./write-text-pool.js";

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
    expect(await writeTextPool(writer(), path, options)).toEqual({ asked: 0, texts: 36 });
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
  });

  it("gives a key up after so many tries, keeping the rest", async () => {
    const deaf = standIn("deaf", () => "No.");
    await expect(writeTextPool(deaf, path, { ...options, attempts: 3 })).rejects.toThrow(
      /no valid poem about quiet ponds in 3/,
    );
    await expect(writeTextPool(deaf, path, { ...options, perKey: 0 })).rejects.toThrow(/perKey must be/);
  });
});

describe("mrcr on a pool", () => {
  it("takes its replies from the pool, each once, and ends where the pool ends", async () => {
    await writeTextPool(writer(), path, { ...options, perKey: 6 });
    const texts = await readTextPool(path);
    const sample = mrcr({ seed: 1, index: 0, maxTokens: 16_384 }, { needles: 2, texts });
    expect(checkSample(sample).problems).toEqual([]);
    const written = new Set(entries().map((line) => JSON.parse(line).text));
    const replies = sample.messages.filter(({ role }) => role === "assistant").map(({ content }) => content);
    expect(replies.every((reply) => written.has(reply))).toBe(true);
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
