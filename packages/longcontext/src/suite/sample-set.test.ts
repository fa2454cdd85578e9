import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { plainSample } from "../../test/samples.js";
import { oracleModel, randomModel } from "../models/stand-ins.js";
import type { Sample } from "../sample.js";
import { utf8Bytes } from "../tokens/tokenizer.js";
import { generateSet, isMadeFrom, originOf, readSamples, readSummary, type SetSpec, writeSet } from "./sample-set.js";
import { scoreSample } from "./score-sample.js";
import { TASKS, tasksNamed } from "./tasks.js";

const spec: SetSpec = { tasks: ["latent_list", "niah_mv"], lengths: [4096, 8192], count: 3, seed: 5 };

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "llmeff-set-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function collect(samples: AsyncIterable<Sample>): Promise<Sample[]> {
  const all: Sample[] = [];
  for await (const sample of samples) all.push(sample);
  return all;
}

describe("sample sets", () => {
  it("come back from the file as they were made, with a summary that fits", async () => {
    const path = join(folder, "samples.jsonl");
    const tokens = { tokenizer: utf8Bytes };
    const made = [...generateSet(spec, tokens)];
    expect(made).toHaveLength(12);
    const summary = await writeSet(path, made, originOf(spec, tokens));
    expect(await collect(readSamples(path))).toEqual(made);
    expect(await readSummary(path)).toEqual(summary);
    expect(summary).toMatchObject({ samples: 12, reserveTokens: 6 * 256 + 6 * 128 });
    expect(isMadeFrom(summary, originOf(spec, tokens))).toBe(true);
    expect(isMadeFrom(summary, originOf({ ...spec, seed: 6 }, tokens))).toBe(false);
    expect(new Set(made.map(({ id }) => id)).size).toBe(12);
  });

  it("leave nothing behind when a generator fails", async () => {
    const path = join(folder, "samples.jsonl");
    function* failing() {
      yield plainSample(1);
      throw new Error("no more");
    }
    await expect(writeSet(path, failing(), {})).rejects.toThrow("no more");
    await expect(readFile(path)).rejects.toThrow("ENOENT");
  });

  it.each([
    ["no JSON", /line 2: expected a JSON object/],
    ['{"schema":"other"}', /expected schema/],
    [JSON.stringify({ ...plainSample(1), task: "chess" }), /a known task, came "chess"/],
    [JSON.stringify({ ...plainSample(1), messages: [] }), /messages/],
    [JSON.stringify({ ...plainSample(1), budget: {} }), /a budget/],
    ["null", /expected schema/],
  ])("tell the line that is no sample: %s", async (line, message) => {
    const path = join(folder, "samples.jsonl");
    await writeFile(path, `${JSON.stringify(plainSample(0))}\n${line}\n`);
    await expect(collect(readSamples(path))).rejects.toThrow(message);
  });

  it("say which file is missing, and which task there isn't", async () => {
    await expect(collect(readSamples(join(folder, "none.jsonl")))).rejects.toThrow(/there is no such file/);
    expect(() => tasksNamed(["niah_s9"])).toThrow(/no task "niah_s9". Tasks and groups: latent_list/);
    expect(() => [...generateSet({ ...spec, count: 0 }, { tokenizer: utf8Bytes })]).toThrow(/count/);
  });
});

describe.each(TASKS.map((task) => [task.name, task] as const))("%s", (_, task) => {
  const samples = [...task.samples({ seed: 3, count: 4, maxTokens: 16_384 })];

  it("scores 1 for the target, and less for a guess", async () => {
    const guesses: number[] = [];
    for (const sample of samples) {
      const request = { messages: sample.messages, maxTokens: sample.budget.reserve, sample };
      expect(scoreSample(sample, (await oracleModel().generate(request)).text).score).toBe(1);
      guesses.push(scoreSample(sample, (await randomModel().generate(request)).text).score);
    }
    expect(guesses.reduce((sum, score) => sum + score, 0) / guesses.length).toBeLessThan(0.9);
  });

  it("takes nothing for the answer in an empty reply", () => {
    for (const sample of samples) expect(scoreSample(sample, "").score).toBe(0);
  });
});
