import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import gpt4 from "../../../../golden/longcontext-real/niah_gpt4.json" with { type: "json" };
import ruler from "../../../../golden/longcontext-real/ruler_samples.json" with { type: "json" };
import { aggregate } from "../report/aggregate.js";
import type { Sample } from "../sample.js";
import { scoreSample, targetText } from "../suite/score-sample.js";
import { lmEvalRecords, mrcrCsvSamples, needleRecords, openAiMrcrSamples, rulerSamples } from "./index.js";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "llmeff-import-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function file(content: string): Promise<string> {
  const path = join(folder, "file");
  await writeFile(path, content);
  return path;
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

const jsonLines = (rows: readonly object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

describe("rulerSamples", () => {
  const names = [...new Set(ruler.rows.map(({ task }) => task))];

  it.each(names)("reads %s as RULER wrote it", async (name) => {
    const rows = ruler.rows.filter(({ task }) => task === name);
    const samples = await collect(rulerSamples(await file(jsonLines(rows)), name));
    expect(samples).toHaveLength(rows.length);
    for (const [i, sample] of samples.entries()) {
      const row = rows[i]!;
      expect(sample.messages).toEqual([{ role: "user", content: row.input + (row.answer_prefix ?? "") }]);
      expect(sample).toMatchObject({ target: row.outputs, meta: { variant: name } });
      expect(scoreSample(sample, targetText(sample)).score).toBe(1);
      expect(scoreSample(sample, "no idea").score).toBe(0);
    }
  });

  it("says what is wrong with a name or a line", async () => {
    const path = await file('{"input":"x","outputs":["1"]}\n{"input":"x"}\n');
    await expect(collect(rulerSamples(path, "chess"))).rejects.toThrow(/no task "chess"/);
    await expect(collect(rulerSamples(path, "niah_single_1"))).rejects.toThrow(/line 2: expected a list "outputs"/);
    await expect(collect(rulerSamples(await file("[1]"), "vt"))).rejects.toThrow(/line 1: expected a JSON object/);
  });
});

describe("openAiMrcrSamples", () => {
  const messages = [
    { role: "user", content: "Write a poem about tea" },
    { role: "assistant", content: "Tea is green." },
    { role: "user", content: "Prepend aB3dE6gH9j to the 1st poem about tea." },
  ];
  const row = {
    prompt: JSON.stringify(messages),
    answer: "aB3dE6gH9jTea is green.",
    random_string_to_prepend: "aB3dE6gH9j",
    n_needles: 4,
  };

  it("reads messages, hash and number of needles", async () => {
    const [sample] = (await collect(openAiMrcrSamples(await file(jsonLines([row]))))) as [Sample];
    expect(sample).toMatchObject({ task: "mrcr", messages, complexity: 4, meta: { variant: "mrcr_4" } });
    expect(scoreSample(sample, row.answer)).toMatchObject({ score: 1, metrics: { openai: 1 } });
  });

  it.each([
    [{ ...row, answer: "Tea is green." }, /doesn't begin with/],
    [{ ...row, prompt: "hello" }, /JSON text of a list of messages/],
    [{ ...row, prompt: '[{"role":"robot","content":""}]' }, /JSON text of a list of messages/],
    [{ prompt: "[]" }, /random_string_to_prepend/],
  ])("refuses what doesn't fit", async (bad, message) => {
    await expect(collect(openAiMrcrSamples(await file(jsonLines([bad]))))).rejects.toThrow(message);
  });
});

describe("mrcrCsvSamples", () => {
  const columns = { prompt: "queries", answer: "answer", hash: "view_ops" };

  it("reads quoted fields over several lines, with the hash before the answer or apart", async () => {
    const path = await file('id,queries,answer,view_ops\r\n1,"User: ""a"",\nb",text,h1h1h1\n2,c,h2h2h2text,h2h2h2\n');
    const samples = await collect(mrcrCsvSamples(path, columns));
    expect(samples.map(({ target }) => target)).toEqual(["h1h1h1text", "h2h2h2text"]);
    expect(samples[0]!.messages[0]!.content).toBe('User: "a",\nb');
  });

  it("names the columns there are, a bad row, and a missing file", async () => {
    await expect(collect(mrcrCsvSamples(await file("a,b\n1,2\n"), columns))).rejects.toThrow(/Its columns: a, b/);
    await expect(collect(mrcrCsvSamples(await file("a,b\n1\n"), columns))).rejects.toThrow(/file:/);
    await expect(collect(mrcrCsvSamples(join(folder, "none"), columns))).rejects.toThrow(/there is no/);
  });
});

describe("needleRecords", () => {
  it("reads the published grid of a judge's scores into a heat map", async () => {
    const records = await needleRecords(await file(JSON.stringify(gpt4.records)), "gpt-4");
    expect(records).toHaveLength(gpt4.records.length);
    const [result] = aggregate(records).results;
    const wanted = gpt4.records.reduce((sum, { score }) => sum + (score - 1) / 9, 0) / gpt4.records.length;
    expect(result!.mean.mean).toBeCloseTo(wanted, 12);
    expect(result!.heatMap!.lengths[0]).toBe(1000);
    expect(result!.heatMap!.n.flat().reduce((sum, n) => sum + n, 0)).toBe(gpt4.records.length);
  });

  it("says which entry doesn't fit", async () => {
    await expect(needleRecords(await file('[{"score":5}]'), "m")).rejects.toThrow(/entry 1: expected context_length/);
    await expect(needleRecords(await file("{"), "m")).rejects.toThrow(/expected JSON/);
    await expect(needleRecords(join(folder, "none"), "m")).rejects.toThrow(/cannot read/);
  });
});

describe("lmEvalRecords", () => {
  it("scores the replies again, and keeps the harness's figures", async () => {
    const doc = { input: "…", outputs: ["12", "34"], max_length: 4096 };
    const rows = [
      {
        doc_id: 0,
        doc,
        resps: [["the codes are 12 and 5"]],
        filtered_resps: ["the codes are 12 and 5"],
        "4096": 0.5,
        "8192": -1,
        task: "niah_multivalue",
      },
      { doc_id: 1, doc, resps: [["34"]], task: "ruler_qa_squad" },
    ];
    const records = await collect(lmEvalRecords(await file(jsonLines(rows)), "m"));
    expect(records.map(({ score, maxTokens, variant }) => ({ score, maxTokens, variant }))).toEqual([
      { score: 0.5, maxTokens: 4096, variant: "niah_multivalue" },
      { score: 1, maxTokens: 4096, variant: "ruler_qa_squad" },
    ]);
    expect(records[0]!.metrics).toEqual({ lm_eval_4096: 0.5 });
    await expect(collect(lmEvalRecords(await file(jsonLines([{ doc }])), "m"))).rejects.toThrow(/--log_samples/);
  });
});
