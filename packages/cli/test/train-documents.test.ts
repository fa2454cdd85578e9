import { readdir, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { loadCheckpoint } from "@llmeff/train";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { mergePatch } from "../src/config/merge.js";
import { readJson } from "../src/config/read-config.js";
import { documentsConfig, runResult, sampleDocuments, sampleText, textConfig, Workplace } from "./harness.js";

let place: Workplace;
beforeEach(async () => {
  place = await Workplace.create();
  await place.write("en.jsonl", sampleDocuments("en", 60));
  await place.write("de.jsonl", sampleDocuments("de", 30));
  await place.write("text.txt", sampleText);
});
afterEach(() => place[Symbol.asyncDispose]());

const tokenize = (corpus: string[], ...options: string[]) =>
  place.run(["tokenize", ...corpus, "--tokenizer", "byte", "--out", "corpus", ...options]);

/** The numbers of the last evaluation. */
async function lastEvaluation(run: string): Promise<Record<string, number>> {
  const { records } = await runResult(place, run);
  return records.findLast((record) => "validationLoss" in record) as Record<string, number>;
}

const ul2Names = ["R-3-0.15", "R-8-0.15", "S-0.25", "X-3-0.5", "X-8-0.5", "X-64-0.15", "X-64-0.5"];

describe("llmeff train on documents", () => {
  it("tells the loss and the bits per byte of all sources, and of each", async () => {
    await place.write("config.json", documentsConfig());
    const { code, stdout, stderr } = await place.run(["train", "config.json"]);
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/step 12: validation \d\.\d{3} nats\/token \(en \d\.\d{3}, de \d\.\d{3}\)/);
    expect(stdout).toMatch(/source en +\d\.\d+ ± 0\.\d+ +\d\.\d{3}/);
    const numbers = await lastEvaluation("tiny");
    for (const name of ["en", "de"]) {
      // Nearly all targets are bytes; the ends of documents are targets without a byte, so a byte costs a little more than a target.
      const bits = numbers[`source/${name}/loss`]! / Math.LN2;
      expect(numbers[`source/${name}/bitsPerByte`]! / bits).toBeGreaterThan(1);
      expect(numbers[`source/${name}/bitsPerByte`]! / bits).toBeLessThan(1.05);
    }
    const [low, high] = [numbers["source/en/loss"]!, numbers["source/de/loss"]!].sort((a, b) => a - b);
    expect(numbers.validationLoss).toBeGreaterThan(low!);
    expect(numbers.validationLoss).toBeLessThan(high!);
    expect(Object.keys(numbers).filter((name) => name.startsWith("objective/"))).toEqual([]);
  });

  it("tells the loss by objective; causal and denoising runs are measured on the same causal text", async () => {
    await place.write("causal.json", documentsConfig({ evaluateObjectives: "ul2" }, { name: "causal" }));
    await place.write("ul2.json", documentsConfig({ objectives: "ul2", packing: "bestFit" }, { name: "ul2" }));
    const runs = [];
    for (const name of ["causal", "ul2"]) {
      const run = await place.run(["train", `${name}.json`, "--steps", "2"]);
      expect(run.code, run.stderr).toBe(0);
      const numbers = await lastEvaluation(name);
      expect(ul2Names.map((objective) => numbers[`objective/${objective}/loss`])).not.toContain(undefined);
      const { config } = (await loadCheckpoint(place.path("runs", name, "checkpoints", "step-00000002"))).state;
      runs.push({ numbers, vocabSize: (config.model as { vocabSize: number }).vocabSize, stop: config.stopTokens });
    }
    // Bytes, the end of documents, three modes, and 8 sentinels: of 48 tokens 24 in spans of 3 would be hidden.
    expect(runs.map(({ vocabSize }) => vocabSize)).toEqual([256 + 1 + 3 + 9, 256 + 1 + 3 + 9]);
    expect(runs.map(({ stop }) => stop)).toEqual([[256], [256]]);
  });

  it.each([
    ["greedy causal rows", {}],
    ["a mixture of denoisers, packed by the best fit", { objectives: "ul2", packing: "bestFit", lookAhead: 8 }],
    ["causal, prefix and spans", { objectives: "palm2-like", maxDocumentTokens: 20 }],
  ])("interrupted and resumed on %s, ends with the weights and curves of an uninterrupted run", async (_, data) => {
    await place.write("config.json", documentsConfig(data));
    await place.run(["train", "config.json", "--out", "runs/straight"]);
    expect(await place.run(["train", "config.json"], { interruptAt: "step 4: validation" })).toMatchObject({
      code: 130,
    });
    const resumed = await place.run(["train", "config.json", "--resume"]);
    expect(resumed.stderr).toContain("going on from");
    expect(resumed.code, resumed.stderr).toBe(0);
    const [one, other] = [await runResult(place, "tiny"), await runResult(place, "straight")];
    expect(one.step).toBe(12);
    expect(one).toEqual(other);
  });

  it("goes on neither with other documents nor with other objectives", async () => {
    await place.write("config.json", documentsConfig());
    await place.run(["train", "config.json"], { interruptAt: "step 4: validation" });
    await place.write("config.json", documentsConfig({ objectives: "palm2-like" }));
    expect(await place.run(["train", "config.json", "--resume"])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('data.objectives: was undefined, is "palm2-like"'),
    });
    await place.write("config.json", documentsConfig());
    await place.write("en.jsonl", sampleDocuments("en", 61));
    expect(await place.run(["train", "config.json", "--resume"])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/state has (?:count|fingerprint) .* but this source has/),
    });
  });

  it("writes texts that end where a document ends", async () => {
    const data = { tokenizer: "character", sources: [{ name: "en", path: "en.jsonl", field: "text" }], batchSize: 16 };
    const long = { training: { steps: 120 }, optimizer: { kind: "adamw", learningRate: 0.02 } };
    await place.write("config.json", documentsConfig(data, long));
    const run = await place.run(["train", "config.json"]);
    expect(run.code, run.stderr).toBe(0);
    const prompt = ["generate", "runs/tiny", "--prompt", "the fox", "--tokens", "200", "--log-probs", "2"];
    const { code, stdout, stderr } = await place.run(prompt);
    expect(code, stderr).toBe(0);
    const { ending, tokens, logProbs } = JSON.parse(stdout);
    expect(ending).toBe("stop");
    expect(tokens).toBeLessThan(200);
    expect(logProbs.at(-1).token).toBe("");
  });

  it("says what is missing: documents on a side, a tokenizer's character, room for an objective", async () => {
    const refused = async (data: object) => {
      await place.write("config.json", documentsConfig(data));
      const { code, stderr } = await place.run(["train", "config.json", "--out", "runs/refused"]);
      expect(code).toBeGreaterThan(0);
      return stderr;
    };
    const whole = [{ name: "all", path: "text.txt" }];
    expect(await refused({ sources: whole })).toMatch(
      /data\.sources: "all" has \d documents for training and \d for validation; there must be some of both/,
    );
    expect(await refused({ eos: "<end>" })).toContain('data.eos: the tokenizer has no token "<end>"');
    expect(await refused({ seqLen: 3, objectives: "ul2" })).toMatch(/sequences of 3 tokens don't hold two tokens/);
    expect(await refused({ sources: [{ name: "en", path: "nowhere.jsonl" }] })).toMatch(/can't read .*nowhere\.jsonl/);
  });
});

describe("llmeff train on token shards", () => {
  const windows = {
    model: { dModel: 16, numLayers: 1, numHeads: 2 },
    data: { kind: "shards", path: "corpus", seqLen: 16, batchSize: 4 },
  };

  /** What shards alone have decided. */
  const ofShards = { tokenizer: undefined, validFraction: undefined };

  it.each([
    ["windows", textConfig(windows)],
    ["documents", documentsConfig({ sources: [{ name: "web", shards: "corpus" }], ...ofShards, objectives: "ul2" })],
  ])("reads %s of a corpus on the disk, and resumes with the same bits", async (_, config) => {
    const written = await tokenize(["en.jsonl", "de.jsonl"], "--valid-fraction", "0.2", "--max-shard-tokens", "700");
    expect(written.code, written.stderr).toBe(0);
    expect((await readdir(place.path("corpus"))).filter((name) => name.endsWith(".bin")).length).toBeGreaterThan(3);
    await place.write("config.json", config);
    const straight = await place.run(["train", "config.json", "--out", "runs/straight"]);
    expect(straight.code, straight.stderr).toBe(0);
    expect(straight.stdout).toMatch(/12 steps.*validation loss \d\.\d{4} ± 0\.\d{4} nats\/token/);
    await place.run(["train", "config.json"], { interruptAt: "step 4: validation" });
    expect(await place.run(["train", "config.json", "--resume"])).toMatchObject({ code: 0 });
    expect(await runResult(place, "tiny")).toEqual(await runResult(place, "straight"));
  });

  it("has the documents that a config reads from the files, and the same held out", async () => {
    const files = { sources: [{ name: "en", path: "en.jsonl" }] };
    await place.write("files.json", documentsConfig(files, { name: "files" }));
    await tokenize(["en.jsonl"], "--valid-fraction", "0.2");
    const shards = { sources: [{ name: "en", shards: "corpus" }], ...ofShards };
    await place.write("shards.json", documentsConfig(shards, { name: "shards" }));
    for (const name of ["files", "shards"]) expect((await place.run(["train", `${name}.json`])).code).toBe(0);
    expect((await runResult(place, "shards")).records).toEqual((await runResult(place, "files")).records);
  });

  it("mixes shards and files in the shards' tokenizer, and refuses two", async () => {
    await tokenize(["en.jsonl"], "--valid-fraction", "0.2");
    const sources = [
      { name: "en", shards: "corpus" },
      { name: "de", path: "de.jsonl" },
    ];
    await place.write("config.json", documentsConfig({ sources, tokenizer: undefined, temperature: 3 }));
    const mixed = await place.run(["train", "config.json"]);
    expect(mixed).toMatchObject({ code: 0, stderr: expect.stringMatching(/\(en \d\.\d{3}, de \d\.\d{3}\)/) });
    await place.run(["tokenize", "de.jsonl", "--tokenizer", "character", "--out", "other", "--valid-fraction", "0.2"]);
    const two = [
      { name: "en", shards: "corpus" },
      { name: "de", shards: "other" },
    ];
    await place.write("config.json", documentsConfig({ sources: two, ...ofShards }));
    expect(await place.run(["train", "config.json", "--out", "runs/two"])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('the shards of "en" and "de" were written with different tokenizers'),
    });
  });

  it("takes the example for a GPU, here made small", async () => {
    await tokenize(["en.jsonl"], "--valid-fraction", "0.2");
    const example = await readJson(fileURLToPath(new URL("../../../examples/objectives-gpu.json", import.meta.url)));
    const small = {
      device: "cpu",
      model: { dModel: 16, numLayers: 1, numHeads: 4, maxSeqLen: 64 },
      data: { sources: [{ name: "corpus", shards: "corpus" }], seqLen: 64 },
    };
    await place.write("config.json", mergePatch(example, small));
    const { code, stdout, stderr } = await place.run(["train", "config.json", "--dry-run"]);
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/20,000 steps of 8,192 tokens take about/);
  });

  it("refuses a corpus of which shards are missing", async () => {
    await tokenize(["en.jsonl"], "--valid-fraction", "0.2", "--max-shard-tokens", "700");
    for (const suffix of ["bin", "idx"]) await rm(place.path("corpus", `train-00001.${suffix}`));
    await place.write("config.json", textConfig(windows));
    const { code, stderr } = await place.run(["train", "config.json"]);
    expect(stderr).toMatch(
      /corpus has \d+ documents \(\d+ tokens\) in \d shards train-\*\.idx; its corpus\.json tells of \d+/,
    );
    expect(code).toBe(1);
  });

  it("says that a folder isn't one, lacks a side, or has too little", async () => {
    await place.write("config.json", textConfig(windows));
    const refused = async () => (await place.run(["train", "config.json", "--out", "runs/refused"])).stderr;
    expect(await refused()).toMatch(/can't read .*corpus\.json: there is no such file/);
    await tokenize(["en.jsonl"], "--valid-fraction", "0.2");
    await place.write("config.json", textConfig({ ...windows, data: { ...windows.data, seqLen: 100_000 } }));
    expect(await refused()).toMatch(
      /data\.seqLen: .*corpus has \d+ tokens for training and \d+ held out; a sequence needs 100001/,
    );
    await place.write("config.json", textConfig(windows));
    for (const name of await readdir(place.path("corpus"))) {
      if (name.startsWith("valid-")) await rm(place.path("corpus", name));
    }
    expect(await refused()).toMatch(/corpus has no shards valid-\*\.idx/);
  });
});
