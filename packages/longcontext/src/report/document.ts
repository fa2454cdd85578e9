/** The report of a run as a document: run card, scores, curves, heat maps, comparisons, failures, data. */
import type {
  Block,
  Cell,
  Excerpt,
  Fact,
  HeatMap as HeatMapBlock,
  LineChart,
  Report,
  Section,
  Series,
  TableBlock,
} from "@llmeff/report";
import { noUsage, type UsageTotals } from "../runner/cost.js";
import { promptTokensOf, type ResultRecord, STATUSES } from "../runner/result.js";
import type { ResultsHeader } from "../runner/results-file.js";
import { decimateCurve } from "../stats/cumulative.js";
import {
  type Aggregate,
  type AggregateOptions,
  aggregate,
  latestRecords,
  type TaskResult,
  taskLabel,
} from "./aggregate.js";
import { learningCurve } from "./learning-curve.js";
import { likelihoodSection, type NllResult } from "./likelihood.js";
import { mrcrTables } from "./mrcr-result.js";
import { percent, shareWithInterval } from "./shares.js";
import { tokensLabel } from "./tokens-label.js";

export interface ReportInput extends AggregateOptions {
  header: ResultsHeader;
  records: readonly ResultRecord[];
  /** Replies that missed; see `chooseFailures` and `failureExcerpt`. */
  failures?: readonly Excerpt[];
  nll?: readonly NllResult[];
  title?: string;
  date?: string;
  footer?: string;
}

/** A report for `renderReport` of `@llmeff/report`. */
export function evaluationReport(input: ReportInput): Report {
  const sums = aggregate(input.records, { models: Object.keys(input.header.config.models), ...input });
  return {
    title: input.title ?? "Long-context evaluation",
    subtitle: subtitle(sums),
    date: input.date ?? input.header.created.slice(0, 10),
    ...(input.footer === undefined ? {} : { footer: input.footer }),
    sections: [
      summary(sums, input),
      ...sums.tasks.map((task) => taskSection(task, sums)),
      ...comparisonSection(sums),
      ...likelihoodSection(input.nll ?? []),
      ...(input.failures?.length
        ? [{ title: "Replies that missed", blocks: [{ kind: "excerpts" as const, excerpts: input.failures }] }]
        : []),
      runCard(sums, input),
    ],
  };
}

function subtitle({ models, tasks, incomplete }: Aggregate): string {
  const of = (names: readonly string[], word: string) => (names.length === 1 ? names[0]! : `${names.length} ${word}`);
  return `${of(models, "models")} on ${of(tasks, "tasks")}${incomplete ? " — incomplete: more than 1 % of the requests ended in errors" : ""}`;
}

function summary(sums: Aggregate, { errors = "exclude", threshold = 0.856 }: ReportInput): Section {
  const rows = sums.results.map((result): Cell[] => [
    result.model,
    result.task,
    result.samples,
    shareWithInterval(result.mean),
    result.floor === null ? null : percent(result.floor),
    result.aboveFloor === null ? null : percent(result.aboveFloor),
    result.effectiveLength === null ? "none" : tokensLabel(result.effectiveLength),
    result.statuses.error + result.statuses.context_exceeded,
  ]);
  const counted =
    errors === "zero"
      ? "Errors and prompts too long for the model count as 0."
      : "Errors and prompts too long for the model are counted, but not in the means.";
  return {
    title: "Scores",
    blocks: [
      {
        kind: "table",
        columns: [
          { header: "Model" },
          { header: "Task" },
          { header: "Samples", style: "integer" },
          { header: "Score", unit: "95 % interval", align: "right" },
          { header: "Floor", align: "right" },
          { header: "Above floor", align: "right" },
          { header: "Effective length", unit: `≥ ${percent(threshold)}`, align: "right" },
          { header: "Not answered", style: "integer" },
        ],
        rows,
        note: `Floor: what a model scores that knows only the form of the answer; of MRCR, that copies one of the replies to the same request. Above floor: the share of what lies between the floor and 100 %. Effective length: the longest tested length that, like all shorter ones, reaches ${percent(threshold)}. ${counted}`,
      },
    ],
  };
}

function taskSection(task: string, { results }: Aggregate): Section {
  const own = results.filter((result) => result.task === task);
  const blocks: Block[] = [
    curveChart(task, own),
    ...learningCurve(task, own),
    lengthTable(own),
    ...own.flatMap((result) => (result.heatMap === null ? [] : [depthMap(result)])),
    ...complexityTable(own),
    ...metricsTable(own),
    ...mrcrTables(own),
  ];
  return { title: task, blocks };
}

function curveChart(task: string, results: readonly TaskResult[]): LineChart {
  const series = results.map((result): Series => {
    const points = decimateCurve(result.curve);
    return {
      name: result.model,
      x: points.map(({ tokens }) => tokens),
      y: points.map(({ mean }) => mean),
      low: points.map(({ low, mean }) => low ?? mean),
      high: points.map(({ high, mean }) => high ?? mean),
    };
  });
  // To the longest budget, which prompts stay a little below, so that it has its tick.
  const longest = Math.max(
    0,
    ...results.flatMap(({ byLength, curve }) => [...byLength.map(({ length }) => length), curve.at(-1)?.tokens ?? 0]),
  );
  const floors = results.flatMap(({ floor }) => (floor === null ? [] : [floor]));
  const floor = floors.length === 0 ? undefined : floors.reduce((sum, value) => sum + value, 0) / floors.length;
  return {
    kind: "lineChart",
    title: `${task}: mean score of all samples up to a length`,
    caption: "Cumulative average; the band is a 95 % interval. k = 1024.",
    x: { label: "prompt tokens", scale: "log2", ...(longest > 0 ? { max: longest } : {}) },
    y: { label: "score", style: "percent", min: 0, max: 1 },
    series,
    ...(floor === undefined ? {} : { references: [{ value: floor, label: `floor ${percent(floor)}` }] }),
  };
}

function lengthTable(results: readonly TaskResult[]): TableBlock {
  const lengths = [...new Set(results.flatMap(({ byLength }) => byLength.map(({ length }) => length)))].sort(
    (a, b) => a - b,
  );
  const shares = { align: "right", style: "percent", digits: 1 } as const;
  return {
    kind: "table",
    caption: "Score at each length",
    columns: [
      { header: "Model" },
      ...lengths.map((length) => ({ header: tokensLabel(length), ...shares })),
      { header: "Area", ...shares },
      { header: "Per doubling", unit: "from 32k on", ...shares },
    ],
    rows: results.map(({ model, byLength, area, degradation }) => [
      model,
      ...lengths.map((length) => byLength.find((at) => at.length === length)?.mean ?? null),
      area,
      degradation?.slopePerDoubling ?? null,
    ]),
    note: "Area: mean of the score over the logarithm of the length. Intervals stand in the data at the end.",
  };
}

function depthMap({ model, heatMap }: TaskResult): HeatMapBlock {
  const { lengths, depths, mean, n, errors } = heatMap!;
  return {
    kind: "heatMap",
    title: `${model}: depth of the needle by length`,
    caption:
      "Mean score in per cent, by the depth asked for where one was; the needle stands there between two sentences. A hatched cell has errors only.",
    columns: { label: "tokens", names: lengths.map(tokensLabel) },
    rows: { label: "depth", names: depths.map((depth) => `${Math.round(depth)} %`) },
    style: "percent",
    cells: mean.map((row, i) =>
      row.map((value, j) => {
        const failed = errors[i]![j]!;
        const note = `n = ${n[i]![j]}${failed > 0 ? `, errors ${failed}` : ""}`;
        return { value, failed: failed > 0, note };
      }),
    ),
  };
}

function complexityTable(results: readonly TaskResult[]): Block[] {
  const values = [...new Set(results.flatMap(({ byComplexity }) => byComplexity.map(({ complexity }) => complexity)))];
  if (values.length < 2) return [];
  values.sort((a, b) => a - b);
  return [
    {
      kind: "table",
      caption: "Score by number of relevant items",
      columns: [{ header: "Model" }, ...values.map((value) => ({ header: String(value), align: "right" as const }))],
      rows: results.map(({ model, byComplexity }) => [
        model,
        ...values.map((value) => {
          const at = byComplexity.find(({ complexity }) => complexity === value);
          return at === undefined ? null : shareWithInterval(at);
        }),
      ]),
    },
  ];
}

function metricsTable(results: readonly TaskResult[]): Block[] {
  const names = [...new Set(results.flatMap(({ metrics }) => Object.keys(metrics)))];
  if (names.length === 0) return [];
  return [
    {
      kind: "table",
      caption: "Other figures",
      columns: [{ header: "Model" }, ...names.map((header) => ({ header, align: "right" as const }))],
      rows: results.map(({ model, metrics }) => [
        model,
        ...names.map((name) => (metrics[name] === undefined ? null : percent(metrics[name]))),
      ]),
    },
  ];
}

function comparisonSection({ comparisons, correlations }: Aggregate): Section[] {
  const blocks: Block[] = [];
  if (comparisons.length > 0) {
    blocks.push({
      kind: "table",
      caption: "Differences on the same samples",
      columns: [
        { header: "Task" },
        { header: "Models" },
        { header: "Pairs", style: "integer" },
        { header: "Difference", unit: "95 % interval", align: "right" },
        { header: "p", align: "right" },
      ],
      rows: comparisons.map(({ task, a, b, n, difference, low, high, pValue }) => [
        task,
        `${a} − ${b}`,
        n,
        `${percent(difference)}${low === null ? "" : ` [${percent(low)}, ${percent(high!)}]`}`,
        pValue < 0.001 ? "< 0.001" : pValue.toFixed(3),
      ]),
      note: "p: McNemar's exact test for right and wrong answers, else a sign-flip test; not corrected for several comparisons.",
    });
  }
  if (correlations.length > 0) {
    blocks.push({
      kind: "table",
      caption: "Do tasks order the models alike? (Spearman)",
      columns: [{ header: "Tasks" }, { header: "ρ", align: "right" }],
      rows: correlations.map(({ tasks, rho }) => [tasks.join(" – "), rho === null ? null : rho.toFixed(2)]),
    });
  }
  return blocks.length === 0 ? [] : [{ title: "Between models", blocks }];
}

function runCard(sums: Aggregate, { header, records }: ReportInput): Section {
  const { models, ...settings } = header.config;
  const facts: Fact[] = [
    { name: "Models", value: sums.models.join(", ") },
    { name: "Run", value: header.runId },
    { name: "Begun", value: header.created },
    ...Object.entries(settings).map(([name, value]) => ({ name: readable(name), value: shown(value) })),
    ...STATUSES.map((status) => ({ name: readable(status), value: sums.statuses[status] })),
  ];
  const usage = totals(records);
  return {
    title: "How it was run",
    blocks: [
      { kind: "facts", facts },
      {
        kind: "table",
        caption: "What it took",
        columns: [
          { header: "Model" },
          { header: "Replies" },
          { header: "Prompt tokens" },
          { header: "From cache" },
          { header: "Completion tokens" },
          { header: "Cost" },
          { header: "Counted / planned", style: "fixed", digits: 2 },
        ],
        rows: [...usage].map(([model, sum]) => [
          model,
          sum.requests,
          sum.promptTokens,
          sum.cachedTokens,
          sum.completionTokens,
          sum.cost,
          sums.tokenRatios[model] ?? null,
        ]),
      },
      { kind: "json", title: "Models", value: models },
      {
        kind: "download",
        label: "Save the numbers as JSON",
        fileName: "evaluation.json",
        value: { header, results: compact(sums), samples: sampleRows(records) },
      },
    ],
  };
}

function totals(records: readonly ResultRecord[]): Map<string, UsageTotals> {
  const byModel = new Map<string, UsageTotals>();
  for (const { model, usage, cost = 0, cached } of records) {
    if (usage === undefined || cached) continue;
    const sum = byModel.get(model) ?? noUsage();
    byModel.set(model, sum);
    sum.requests++;
    sum.promptTokens += usage.promptTokens;
    sum.cachedTokens += usage.cachedTokens ?? 0;
    sum.completionTokens += usage.completionTokens;
    sum.cost += cost;
  }
  return byModel;
}

/** The sums without curves and maps, which follow from the samples. */
function compact({ results, ...sums }: Aggregate) {
  return { ...sums, results: results.map(({ curve: _, heatMap: __, ...result }) => result) };
}

/** A row a sample: small enough that ten thousand of them fit a page. */
function sampleRows(records: readonly ResultRecord[]) {
  const columns = ["model", "task", "id", "trial", "complexity", "maxTokens", "promptTokens", "status", "score"];
  const rows = latestRecords(records).map((record) => [
    record.model,
    taskLabel(record),
    record.id,
    record.trial,
    record.complexity,
    record.maxTokens,
    promptTokensOf(record),
    record.status,
    record.score === undefined ? null : Number(record.score.toPrecision(6)),
  ]);
  return { columns, rows };
}

function readable(name: string): string {
  const words = name
    .replace(/([a-z])([A-Z])/g, "$1 $2")
    .replaceAll("_", " ")
    .toLowerCase();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function shown(value: unknown): string {
  if (Array.isArray(value) && value.every((item) => typeof item !== "object")) return value.join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}
