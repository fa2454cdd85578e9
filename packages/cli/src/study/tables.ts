/** The tables of a study, for the terminal and for the report. */
import { type Cell, type Column, formatScientific, type Table } from "@llmeff/report";
import type { Part } from "./load-study.js";
import type { ArmResult } from "./outcome.js";
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
  const data = part.arms[0]?.config.data;
  const unit = data?.kind === "text" && data.tokenizer === "character" ? "nats/char" : "nats/token";
  return { name: "Validation loss", unit, target: `${part.target} ${unit}` };
}

/** Learning rates as people write them: 0.002, 3e-4. */
export function formatRate(rate: number): string {
  return rate >= 1e-3 ? String(rate) : rate.toExponential();
}

export function resultTable(part: Part, results: readonly ArmResult[]): Table {
  const { name, unit, target } = metricWords(part);
  const accuracy = part.metric === "accuracy";
  const columns: Column[] = [
    { header: "Arm" },
    { header: "Parameters", style: "integer" },
    { header: "Tokens", style: "compact" },
    { header: "FLOPs", align: "right" },
    { header: `Tokens to ${target}`, style: "compact", best: "min" },
    {
      header: `Final ${name.toLowerCase()}`,
      unit,
      best: accuracy ? "max" : "min",
      ...(accuracy ? { style: "percent" as const, digits: 1 } : {}),
    },
    { header: "Tokens/s", style: "compact" },
    { header: "Minutes", style: "fixed", digits: 2 },
  ];
  const rows = results.map(({ name, outcome, tokensToTarget }): Cell[] => [
    name,
    outcome.parameters,
    outcome.tokens,
    formatScientific(outcome.flopsPerToken * outcome.tokens, 2),
    tokensToTarget,
    Number.isFinite(outcome.standardError)
      ? { value: outcome.value, standardError: outcome.standardError }
      : outcome.value,
    outcome.tokens / outcome.seconds,
    outcome.seconds / 60,
  ]);
  return {
    columns,
    rows,
    note:
      "± is one standard error over the validation sequences; it doesn't hold what another seed would change. FLOPs: forward and backward, " +
      "6 per weight and token plus attention as masks and windows allow. Minutes are those of training steps, without evaluations.",
  };
}

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
      ? ` at ${(tokens.reduce<number>((sum, count) => sum + count!, 0) / tokens.length / 1e6).toFixed(2)}M tokens`
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
