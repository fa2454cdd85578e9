import { type LineChart, renderReport, type Series, type TableBlock, type TextPiece } from "@llmeff/report";
import { describe, expect, it } from "vitest";
import { plainSample } from "../../test/samples.js";
import { factsOf, RESULTS_SCHEMA, type ResultRecord } from "../runner/result.js";
import type { ResultsHeader } from "../runner/results-file.js";
import { fitPowerLaw } from "../stats/power-law.js";
import { generateSet } from "../suite/sample-set.js";
import { utf8Bytes } from "../tokens/tokenizer.js";
import { aggregate } from "./aggregate.js";
import { resultsCsv } from "./csv.js";
import { evaluationReport } from "./document.js";
import { chooseFailures, failureExcerpt } from "./failures.js";
import { nllReport } from "./likelihood.js";
import { promptExcerpt } from "./prompt-excerpt.js";
import { tokensLabel } from "./tokens-label.js";

const header: ResultsHeader = {
  schema: RESULTS_SCHEMA,
  runId: "r",
  configHash: "c",
  config: { models: { a: {}, b: {} }, temperature: 0, tools: "off" },
  created: "2026-01-02T03:04:05.678Z",
};

function record(overrides: Partial<ResultRecord>): ResultRecord {
  return {
    id: "s0",
    task: "niah",
    variant: "niah_s2",
    seed: 0,
    index: 0,
    complexity: 1,
    maxTokens: 4096,
    budgetTokens: 4000,
    promptSha256: "p",
    key: "k",
    model: "a",
    trial: 0,
    status: "ok",
    text: "x",
    attempts: 1,
    at: header.created,
    score: 1,
    ...overrides,
  };
}

/** Model a is right up to 8k, b up to 4k; four samples a length. */
const grid = ["a", "b"].flatMap((model) =>
  [4096, 8192, 16_384].flatMap((maxTokens, i) =>
    [0, 50, 100, 100].map((depth, j) =>
      record({
        model,
        id: `s${i}-${j}`,
        maxTokens,
        budgetTokens: maxTokens - 100,
        usage: { promptTokens: maxTokens - 90, completionTokens: 5 },
        cost: 0.5,
        depths: [depth],
        score: i < (model === "a" ? 2 : 1) ? 1 : 0,
      }),
    ),
  ),
);

describe("aggregate", () => {
  it("sums a model up by length, depth and in all", () => {
    const { results, models, tasks } = aggregate(grid);
    expect({ models, tasks }).toEqual({ models: ["a", "b"], tasks: ["niah_s2"] });
    const [a, b] = results as [(typeof results)[0], (typeof results)[0]];
    expect(a.mean).toMatchObject({ n: 12, mean: 2 / 3 });
    expect(a.byLength.map(({ length, mean }) => [length, mean])).toEqual([
      [4096, 1],
      [8192, 1],
      [16_384, 0],
    ]);
    expect([a.effectiveLength, b.effectiveLength]).toEqual([8192, 4096]);
    // Trapezoids over two doublings: (1 + 1)/2 and (1 + 0)/2.
    expect(a.area).toBeCloseTo(0.75, 12);
    expect(a.curve.map(({ tokens, mean }) => [tokens, mean])).toEqual([
      [4006, 1],
      [8102, 1],
      [16_294, 2 / 3],
    ]);
    expect(a.heatMap!.n[10]).toEqual([2, 2, 2]);
    expect(a.heatMap!.mean[5]).toEqual([1, 1, 0]);
  });

  it("fills every cell of a grid, however few places a short context has for a needle", () => {
    const spec = { tasks: ["niah_grid"], lengths: [1024, 2048, 16_384], count: 1, seed: 0 };
    const samples = [...generateSet(spec, { tokenizer: utf8Bytes })];
    const records = samples.map((sample) => record(factsOf(sample, "p")));
    const { heatMap } = aggregate(records).results[0]!;
    expect(heatMap!.n).toEqual(heatMap!.depths.map(() => [1, 1, 1]));
    // Where the needles really stand is told, too.
    expect(new Set(records.slice(0, 11).map(({ depths }) => depths![0])).size).toBeLessThan(11);
  });

  it("compares models on the samples that both have", () => {
    const [comparison] = aggregate(grid.filter(({ model, id }) => model === "a" || id !== "s0-0")).comparisons;
    expect(comparison).toMatchObject({ a: "a", b: "b", task: "niah_s2", n: 11, difference: 4 / 11, test: "mcnemar" });
    // Four pairs differ, all one way: 2 · 2⁻⁴.
    expect(comparison!.pValue).toBeCloseTo(0.125, 12);
  });

  it("counts refusals as 0 and leaves errors out, or takes them for 0; the last of a sample's records counts", () => {
    const records = [
      record({ id: "1" }),
      record({ id: "2", status: "refused", score: 0 }),
      ...(["error", "context_exceeded"] as const).map((status, i) => {
        const { score: _, ...failed } = record({ id: `f${i}`, status });
        return failed;
      }),
      record({ id: "1", score: 0.5 }),
    ];
    expect(aggregate(records).results[0]).toMatchObject({ samples: 4, mean: { n: 2, mean: 0.25 } });
    expect(aggregate(records, { errors: "zero" }).results[0]).toMatchObject({ mean: { n: 4, mean: 0.125 } });
    expect(aggregate(records)).toMatchObject({ incomplete: true, statuses: { ok: 1, refused: 1, error: 1 } });
  });

  it("takes the trials of a sample for one observation, and tells what is above the floor", () => {
    const records = [0, 1].flatMap((trial) =>
      ["x", "y", "z"].map((id, i) => record({ id, trial, score: i === 0 ? trial : 1, floor: 0.5 })),
    );
    const [result] = aggregate(records).results;
    // Means of the trials: 1/2, 1, 1.
    expect(result!.mean).toMatchObject({ n: 3, mean: 5 / 6 });
    expect(result).toMatchObject({ floor: 0.5, aboveFloor: expect.closeTo(2 / 3, 12) });
  });

  it("sums MRCR up as the published sets do: by each one's scorer, in its bins", () => {
    // The answer is a fiftieth of the prompt, so the first prompt is in MRCR v2's bucket up to 8k and in OpenAI's up to 16k.
    const lengths = [8100, 8000, 16_000, 32_000, 64_000, 128_000, 4000];
    const records = lengths.map((budgetTokens, i) =>
      record({
        id: `m${i}`,
        task: "mrcr",
        variant: "mrcr_2",
        budgetTokens,
        answerShare: 0.02,
        score: 0.9,
        metrics: { openai: i / 10, "gdm-v2": 1 - i / 10 },
      }),
    );
    const refused = record({ id: "r", task: "mrcr", variant: "mrcr_2", budgetTokens: 16_000, status: "refused" });
    const { openai, gdm } = aggregate([...records, refused]).results[0]!.mrcr!;
    expect(openai.outside).toBe(1);
    expect(openai.bins.map(({ tokens, samples, mean }) => [tokens[1], samples, mean])).toEqual([
      [8192, 1, 0.1],
      // 0, 0.2 and the refusal
      [16_384, 3, expect.closeTo(0.2 / 3, 12)],
      [32_768, 1, 0.3],
      [65_536, 1, 0.4],
      [131_072, 1, 0.5],
    ]);
    expect(gdm.bins.map(({ samples }) => samples)).toEqual([2, 2, 1, 1, 1]);
    // Buckets: 0.95, 0.4, 0.7, 0.6, 0.5.
    expect(gdm.upTo128k).toMatchObject({ n: 7, mean: expect.closeTo(0.63, 12), low: null });
    expect(aggregate(grid).results[0]!.mrcr).toBeNull();
  });

  it("correlates tasks over three models or more", () => {
    const scores = { a: [0.1, 0.9], b: [0.5, 0.4], c: [0.9, 0.1] };
    const records = Object.entries(scores).flatMap(([model, [x, y]]) => [
      record({ model, id: "x", score: x! }),
      record({ model, id: "y", variant: "idk", score: y! }),
    ]);
    expect(aggregate(records).correlations).toEqual([{ tasks: ["niah_s2", "idk"], rho: -1 }]);
    expect(aggregate(grid).correlations).toEqual([]);
  });
});

describe("evaluationReport", () => {
  it("renders: run card, scores, curves, heat maps, comparison, failures, data", () => {
    const failures = chooseFailures(grid).map((failed) => failureExcerpt(failed, undefined));
    const html = renderReport(evaluationReport({ header, records: grid, failures }));
    for (const text of [
      "2 models on niah_s2",
      "66.7 % [39.1, 86.2]",
      "a: depth of the needle by length",
      "Differences on the same samples",
      "Replies that missed",
      "Temperature",
      "Tools",
    ]) {
      expect(html).toContain(text);
    }
    const data = [...html.matchAll(/<script type="application\/json">([^<]*)<\/script>/g)].at(-1)![1]!;
    expect((JSON.parse(data) as { samples: { rows: unknown[] } }).samples.rows).toHaveLength(24);
  });

  it("tells a score as its share of what lies above the floor, too", () => {
    const [table] = evaluationReport({ header, records: [record({ score: 0.8, floor: 0.5 })] }).sections[0]!.blocks;
    const { columns, rows } = table as TableBlock;
    const cells = Object.fromEntries(columns.map(({ header: name }, i) => [name, rows[0]![i]]));
    // (0.8 − 0.5) / (1 − 0.5)
    expect(cells).toMatchObject({ Floor: "50.0 %", "Above floor": "60.0 %" });
  });

  it("draws the score against the examples shown, where that is what differs", () => {
    const pairs = [1, 16, 16, 256].map((complexity, i) =>
      record({ id: `p${i}`, task: "conlang", variant: "conlang_pairs", complexity, score: [0.1, 0.2, 0.4, 0.5][i]! }),
    );
    const titles = (records: ResultRecord[]) =>
      evaluationReport({ header, records }).sections.flatMap(({ blocks }) =>
        blocks.flatMap((block) => (block.kind === "lineChart" ? [block] : [])),
      );
    const [, curve] = titles(pairs);
    expect(curve).toMatchObject({ title: "In-context learning", x: { label: "sentence pairs", scale: "log2" } });
    const [{ name, x, y, low, high }] = curve!.series as [Series];
    expect([name, x]).toEqual(["a", [1, 16, 256]]);
    for (const [i, mean] of [0.1, 0.3, 0.5].entries()) expect(y[i]).toBeCloseTo(mean, 12);
    expect([low![0], high![2]]).toEqual([0.1, 0.5]);
    expect(titles(pairs.slice(0, 1)).map(({ title }) => title)).not.toContain("In-context learning");
    expect(titles(grid).map(({ title }) => title)).not.toContain("In-context learning");
  });

  it("shows MRCR in the bins of the published sets, and how many samples lie outside", () => {
    const records = ["a", "b"].flatMap((model) =>
      [4000, 8000, 9000].map((budgetTokens, i) =>
        record({ model, id: `m${i}`, task: "mrcr", budgetTokens, metrics: { openai: 0.5, "gdm-v2": 0.25 } }),
      ),
    );
    const tables = evaluationReport({ header, records }).sections.flatMap(({ blocks }) =>
      blocks.flatMap((block) => (block.kind === "table" && /^As /.test(block.caption ?? "") ? [block] : [])),
    );
    expect(tables.map(({ caption }) => caption)).toEqual(["As OpenAI-MRCR reports", "As MRCR v2 reports"]);
    const [openai, gdm] = tables as [TableBlock, TableBlock];
    expect(openai.columns.map(({ header }) => header)).toEqual(["Model", "4k–8k", "8k–16k"]);
    expect(openai.rows).toEqual(["a", "b"].map((model) => [model, "50.0 %", "50.0 %"]));
    expect(openai.note).toContain("outside of 4k to 1M: 1 of a, 1 of b");
    expect(gdm.columns.at(-1)!.header).toBe("≤ 128k");
    expect(gdm.rows[0]).toEqual(["a", "25.0 %", "25.0 %", null]);
    const none = evaluationReport({ header, records: grid });
    expect(JSON.stringify(none)).not.toContain("As MRCR v2 reports");
  });

  it("stays under 3 MB for ten thousand samples", () => {
    const many = Array.from({ length: 10_000 }, (_, i) =>
      record({
        id: `niah-0-${i}-131072-0123456789ab`,
        index: i,
        maxTokens: 2 ** (12 + (i % 6)),
        budgetTokens: 4000 + i,
        depths: [i % 100],
        score: i % 2,
        text: "y".repeat(5000),
      }),
    );
    const failures = chooseFailures(many).map((failed) => failureExcerpt(failed, undefined));
    expect(failures).toHaveLength(60);
    expect(renderReport(evaluationReport({ header, records: many, failures })).length).toBeLessThan(3e6);
  });

  it("shows nothing measured, and likelihood curves where they are given", () => {
    expect(renderReport(evaluationReport({ header, records: [] }))).toContain("0 models on 0 tasks");
    const nll = [{ model: "a", points: [{ position: 128, mean: 3, documents: 1 }], fit: null }];
    expect(renderReport(evaluationReport({ header, records: grid, nll }))).toContain(
      "Negative log-likelihood against position",
    );
  });

  it("draws likelihood with the power law that was fitted to it, and says where there is none", () => {
    const positions = [128, 256, 512, 1024];
    const points = positions.map((position) => ({ position, mean: 2 + 8 / position, documents: 3 }));
    const law = {
      ...{ model: "lawful", points: [...points, { position: 2048, mean: null, documents: 0 }] },
      bins: [{ positions: [64, 128] as [number, number], mean: 2.5, tokens: 192 }],
      fit: fitPowerLaw(
        positions,
        points.map(({ mean }) => mean),
      ),
    };
    const report = nllReport({ results: [law, { model: "short", points: points.slice(0, 2), fit: null }] });
    const [curves, bins, fits, table] = report.sections[0]!.blocks as [LineChart, LineChart, TableBlock, TableBlock];
    expect(curves.series.map(({ name }) => name)).toEqual(["lawful", "lawful, α·xᵝ + γ", "short"]);
    // β = −1 exactly: the drawn law goes through the points, and between them is the law.
    const [measured, drawn] = curves.series as [Series, Series];
    expect(Array.from(measured.x)).toEqual(positions);
    expect(drawn.x.length).toBe(13);
    for (const [i, x] of Array.from(drawn.x).entries()) expect(drawn.y[i]).toBeCloseTo(2 + 8 / x, 6);
    expect(bins.series).toEqual([{ name: "lawful", x: [128], y: [2.5] }]);
    expect(fits.rows.map((row) => row[0])).toEqual(["lawful", "short"]);
    expect(fits.rows[0]![2]).toBeCloseTo(-1, 5);
    expect(fits.rows[1]!.slice(1).every((cell) => cell === null)).toBe(true);
    expect(table.rows).toEqual([
      ["128", 2 + 8 / 128, 3, 2 + 8 / 128, 3],
      ["256", 2 + 8 / 256, 3, 2 + 8 / 256, 3],
      ["512", 2 + 8 / 512, 3, null, null],
      ["1k", 2 + 8 / 1024, 3, null, null],
    ]);
    expect(renderReport(report)).toContain("likelihood.json");
  });

  it("doesn't take a model's text for markup", () => {
    const hostile = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>';
    const failed = record({ text: hostile, model: hostile, id: hostile, score: 0, extracted: hostile });
    const failures = [failureExcerpt(failed, undefined)];
    const html = renderReport(evaluationReport({ header, records: [failed], failures }));
    expect(html).not.toContain("<img");
    expect(html).not.toContain("<script>alert");
  });
});

describe("failures", () => {
  it("marks what a copy shares with its target", () => {
    const sample = plainSample(1, { task: "mrcr", target: "hashThe tea is hot." });
    const excerpt = failureExcerpt(
      record({ task: "mrcr", text: "<think>hm</think>hashThe tea was hot.", score: 0.9 }),
      sample,
    );
    const [target, reply] = excerpt.parts as unknown as { text: TextPiece[] }[];
    expect(target!.text.filter(({ marked }) => marked).map(({ text }) => text)).toEqual(["hashThe tea ", "s hot."]);
    expect(reply!.text.map(({ text }) => text).join("")).toBe("hashThe tea was hot.");
  });

  it("shows the prompt around the needle, and its end", () => {
    const filler = "word ".repeat(5000);
    const content = `${filler}The registry code for key is 7654321. ${filler}Question: What?`;
    const sample = plainSample(1, {
      messages: [{ role: "user", content }],
      target: ["7654321"],
      meta: { maxUnitTokens: 1, fill: 1, needles: [["key", "7654321"]] },
    });
    const shown = promptExcerpt(sample);
    expect(shown.length).toBeLessThanOrEqual(2000);
    expect(shown).toContain("The registry code for key is 7654321.");
    expect(shown.endsWith("Question: What?")).toBe(true);
    expect(shown.startsWith("… ")).toBe(true);
  });
});

it("writes a table of all results for other programs", () => {
  const csv = resultsCsv([record({ id: 'with "quotes", and commas', depths: [12.5] })]);
  const [names, row] = csv.split("\r\n") as [string, string];
  expect(names.split(",")).toHaveLength(16);
  expect(row).toBe('a,niah_s2,"with ""quotes"", and commas",0,1,4096,4000,,12.5,ok,1,,,1,,');
});

it("writes lengths as people do", () => {
  expect([512, 4096, 131_072, 1_048_576, 1_572_864, 128_000, 10_000_000].map(tokensLabel)).toEqual([
    "512",
    "4k",
    "128k",
    "1M",
    "1.5M",
    "125k",
    "10.0M",
  ]);
});
