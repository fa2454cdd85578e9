/** The examples that are programs run, here for a few steps, and get to results. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ResultRecord } from "@llmeff/longcontext";
import { afterAll, afterEach, describe, expect, it, vi } from "vitest";

const programArguments = process.argv;
const folder = mkdtempSync(join(tmpdir(), "llmeff-examples-"));
afterEach(() => {
  process.argv = programArguments;
  vi.restoreAllMocks();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("examples with other libraries", () => {
  it.each(["tfjs", "jax-js"])("%s-autoencoder.mjs compares three optimizers", { timeout: 240_000 }, async (name) => {
    process.argv = [...programArguments.slice(0, 2), "3"];
    const lines: string[] = [];
    vi.spyOn(console, "log").mockImplementation((line) => void lines.push(line));
    vi.spyOn(process, "exit").mockImplementation(() => undefined as never);
    await import(`../examples/${name}-autoencoder.mjs`);
    expect(lines.filter((line) => /: validation loss 0\.\d{4}$/.test(line))).toHaveLength(15);
    const results = lines.filter((line) => line.includes("test loss"));
    expect(results).toHaveLength(3);
    for (const line of results) {
      // Guessing 1/2 for every pixel costs log 2.
      const loss = Number(/test loss (0\.\d{4}) at its best rate/.exec(line)?.[1]);
      expect(loss, line).toBeLessThan(Math.log(2));
    }
  });
});

describe("salt.mjs", () => {
  it("compares four arms over seeds, and makes no run twice", { timeout: 240_000 }, async () => {
    vi.spyOn(console, "log").mockImplementation(() => undefined);
    const name = "salt";
    const run = async (seeds: string) => {
      process.argv = [...programArguments.slice(0, 2), "--size", "smoke", "--seeds", seeds, "--out", folder];
      vi.resetModules();
      await import(`../examples/${name}.mjs`);
      const lines = readFileSync(join(folder, "results.jsonl"), "utf8").trim().split("\n");
      return lines.map(
        (line) => JSON.parse(line) as { settings: { arm: string; seed: number }; curve: { losses: number[] } },
      );
    };
    const first = await run("1,2");
    const arms = ["BASELINE", "RKD", "SALT", "SALT_DS"];
    const [baseline, ...taught] = arms.map((arm) => [101, 1, 2].map((seed) => [arm, seed]));
    const wanted = [...baseline!, ["TEACHER", 7], ...taught.flat()];
    expect(first.map(({ settings }) => [settings.arm, settings.seed])).toEqual(wanted);
    // A text of bytes is learnt from log 256 on.
    for (const { curve } of first) expect(curve.losses.at(-1)).toBeLessThan(Math.log(256));
    expect(readFileSync(join(folder, "report.html"), "utf8")).toContain("Does a small teacher help at first?");
    expect(await run("1,3")).toHaveLength(first.length + arms.length);
  });
});

describe("long-recall.mjs", () => {
  it("trains, asks every needle of a text in one pass over it, and asks nothing twice", {
    timeout: 240_000,
  }, async () => {
    const printed: string[] = [];
    vi.spyOn(console, "log").mockImplementation((line) => void printed.push(line));
    vi.spyOn(process.stderr, "write").mockImplementation(() => true);
    const name = "long-recall";
    const results = join(folder, "recall.jsonl");
    const run = async (lengths: string) => {
      const options = ["--size", "smoke", "--lengths", lengths, "--out", join(folder, "recall"), "--results", results];
      process.argv = [...programArguments.slice(0, 2), ...options];
      vi.resetModules();
      await import(`../examples/${name}.mjs`);
      const [, ...records] = readFileSync(join(folder, "recall", "results.jsonl"), "utf8")
        .trim()
        .split("\n");
      return records.map((line) => JSON.parse(line) as ResultRecord);
    };
    const first = await run("512,1k");
    expect(first.map(({ maxTokens }) => maxTokens)).toEqual([512, 512, 512, 512, 1024, 1024, 1024, 1024]);
    for (const [i, { status, usage, depths, budgetTokens }] of first.entries()) {
      expect(["ok", "truncated"]).toContain(status); // eight steps teach no ends of answers
      expect(depths).toHaveLength(1);
      // Two needles a text: its first question is the first that reads it.
      if (i % 2 === 0) expect(usage!.cachedTokens).toBeLessThan(budgetTokens / 2);
      else expect(usage!.cachedTokens).toBeGreaterThan(budgetTokens - 100);
    }
    // Bytes are learnt from log 256 on.
    const loss = Number(/trained for 2 steps.* loss (\d+\.\d+)/.exec(printed.join("\n"))?.[1]);
    expect(loss).toBeLessThan(Math.log(256));
    const rows = readFileSync(results, "utf8").trim().split("\n");
    expect(rows.map((line) => JSON.parse(line))).toMatchObject([
      { length: 512, texts: 2, trials: 4, low: expect.any(Number), high: expect.any(Number) },
      { length: 1024, texts: 2, trials: 4, peakBytes: expect.any(Number) },
    ]);
    expect(readFileSync(join(folder, "recall", "report.html"), "utf8")).toContain("depth of the needle by length");
    printed.length = 0;
    expect((await run("512,1k,2k")).slice(0, 8)).toEqual(first);
    expect(printed.join("\n")).not.toContain("trained for");
    expect(printed.join("\n")).toMatch(/2k +4 +2 +\d of 4/);
  });
});
