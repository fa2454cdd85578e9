/** The tables of a study, for the terminal and for the report. */
import { type Cell, type Column, formatCompact, type Table } from "@llmeff/report";
import { lossUnit } from "../config/data-schema.js";
import { measuredSets } from "../run/loss-sets.js";
import { type ArmResult, difference, meanOf } from "./arm-result.js";
import type { Part } from "./load-study.js";
import type { SweptPart } from "./sweep-file.js";

/** The metric of a part in words. */
export interface MetricWords {
  name: string;
  unit: string | undefined;
  /** The target as in "reached …". */
  target: string;
}

export function metricWords(part: Part): MetricWords {
  if (part.metric === "accuracy") {
    return { name: "Accuracy", unit: undefined, target: `${Number((part.target * 100).toFixed(2))} % accuracy` };
  }
  const unit = lossUnit(part.arms[0]!.config.data);
  return { name: "Validation loss", unit, target: `${part.target} ${unit}` };
}

/** Learning rates as people write them: 0.002, 3e-4. */
function formatRate(rate: number): string {
  return rate >= 1e-3 ? String(rate) : rate.toExponential();
}

export function resultTable(part: Part, results: readonly ArmResult[]): Table {
  const { name, unit, target } = metricWords(part);
  const accuracy = part.metric === "accuracy";
  const seeds = part.seeds.length;
  const mixed = results.some(({ parameters, activeParameters }) => activeParameters < parameters);
  const columns: Column[] = [
    { header: "Arm" },
    { header: "Parameters", style: "integer" },
    ...(mixed ? [{ header: "a token meets", style: "integer" as const }] : []),
    { header: "Tokens", style: "compact" },
    { header: "FLOPs", style: "compact" },
    { header: "To target", unit: "tokens", style: "compact", align: "right", best: "min" },
    {
      header: `Final ${name.toLowerCase()}`,
      unit,
      best: accuracy ? "max" : "min",
      ...(accuracy ? { style: "percent" as const, digits: 1 } : {}),
    },
    { header: "Tokens/s", style: "compact" },
    { header: "Minutes", style: "fixed", digits: 2 },
  ];
  const rows = results.map((result): Cell[] => [
    result.name,
    result.parameters,
    ...(mixed ? [result.activeParameters] : []),
    result.tokens,
    result.flopsPerToken * result.tokens,
    seeds > 1 ? medianOf(result) : result.tokensToTarget,
    Number.isFinite(result.standardError) ? { value: result.value, standardError: result.standardError } : result.value,
    result.tokens / result.seconds,
    result.seconds / 60,
  ]);
  return { columns, rows, note: `Target: ${target}. ${seedNote(seeds)} ${costNote}` };
}

/** What the other arms end with more than the first, with 95 % intervals; undefined of one arm or one seed, which have none. */
export function differenceTable(part: Part, results: readonly ArmResult[]): Table | undefined {
  const [first, ...others] = results;
  if (first === undefined || others.length === 0 || part.seeds.length < 2) return undefined;
  const { name, unit = "percentage points" } = metricWords(part);
  const [scale, digits] = part.metric === "accuracy" ? [100, 1] : [1, 3];
  const column = (header: string): Column => ({ header, unit, style: "fixed", digits });
  return {
    caption: `Final ${name.toLowerCase()} less that of ${first.name}`,
    columns: [{ header: "Arm" }, column("Difference"), column("From"), column("To")],
    rows: others.map((other) => {
      const { mean, low, high } = difference(other, first);
      return [other.name, ...[mean, low, high].map((value) => scale * value)];
    }),
    note: "Mean over the same seeds, and the ends of its 95 % interval after Student.",
  };
}

/** The final loss by source and by objective, of data that tell, a column for each arm; undefined of others. */
export function partsTable(part: Part, results: readonly ArmResult[]): Table | undefined {
  const measured = results.map(({ runs }) => runs.map(({ outcome }) => measuredSets(outcome.metrics)));
  const sets = measured[0]?.[0] ?? [];
  if (sets.length === 0) return undefined;
  const unit = metricWords(part).unit;
  const rows = sets.map((_, row): Cell[] => [
    `${sets[row]!.division} ${sets[row]!.name}`,
    ...measured.map((runs): Cell => {
      const own = meanOf(runs.map((all) => ({ ...all[row]!, value: all[row]!.loss })));
      return Number.isFinite(own.standardError) ? own : own.value;
    }),
  ]);
  return {
    caption: `Final loss on parts of the held-out data, ${unit}`,
    columns: [
      { header: "Held out" },
      ...results.map(({ name }): Column => ({ header: name, style: "fixed", digits: 3 })),
    ],
    rows,
    note:
      `${part.seeds.length > 1 ? `Mean ± standard error over ${part.seeds.length} seeds` : "± is one standard error over sequences"}. ` +
      "Sources are measured by causal language modelling; objectives are named by kind, mean length of a hidden span, and share of what is hidden.",
  };
}

/** `983k (3/3)`, or a dash where fewer than the median got there. */
function medianOf({ tokensToTarget, reached, runs }: ArmResult): string {
  return `${tokensToTarget === null ? "–" : formatCompact(tokensToTarget)} (${reached}/${runs.length})`;
}

function seedNote(seeds: number): string {
  if (seeds === 1) {
    return "± is one standard error over the validation sequences; it doesn't hold what another seed would change.";
  }
  return (
    `Over ${seeds} seeds: tokens to the target are the median, where a seed that never got there counts as infinite, with how many got there; ` +
    "the final value is the mean ± its standard error; tokens, FLOPs and minutes are sums."
  );
}

const costNote =
  "FLOPs: forward and backward, 6 per weight and token plus attention as masks and windows allow. " +
  "Minutes are those of training steps, without evaluations.";

/** One row an arm, one column a place in its grid. */
export function sweepTable({ name, metric, arms, seeds }: SweptPart): Table {
  const places = arms[0]?.learningRates.map((_, i) => i) ?? [];
  const accuracy = metric === "accuracy";
  const cell = (arm: SweptPart["arms"][number], place: number): string => {
    const rate = arm.learningRates[place]!;
    const runs = arm.runs.filter(({ learningRate }) => learningRate === rate);
    const values = runs.map(({ value }) => value);
    if (values.some((value) => value === null)) return `${formatRate(rate)}: diverged`;
    const mean = values.reduce<number>((sum, value) => sum + value!, 0) / values.length;
    const shown = accuracy ? `${(100 * mean).toFixed(1)} %` : mean.toFixed(3);
    const tokens = runs.map(({ tokensToTarget }) => tokensToTarget);
    const early = tokens.every((count) => count !== null)
      ? ` after ${(tokens.reduce<number>((sum, count) => sum + count!, 0) / tokens.length / 1e6).toFixed(2)}M tokens`
      : "";
    return `${formatRate(rate)}: ${shown}${early}`;
  };
  return {
    caption: `Sweep of ${name}: learning rate and ${accuracy ? "accuracy" : "validation loss"} at the end, ${seeds.length === 1 ? "one seed" : `mean of ${seeds.length} seeds`}`,
    columns: [
      { header: "Arm" },
      ...places.map((i) => ({ header: `Rate ${i + 1}` })),
      { header: "Chosen", align: "right" as const },
    ],
    rows: arms.map((arm) => [arm.name, ...places.map((i) => cell(arm, i)), formatRate(arm.chosen)]),
  };
}
