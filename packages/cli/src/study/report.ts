/** The study's page: findings, tables, curves, samples, configs, machine. */
import type { Block, LineChart, Report, Section, Series } from "@llmeff/report";
import { collectInfo, infoFacts } from "../commands/info.js";
import { toJson } from "../config/merge.js";
import { version } from "../version.js";
import { choiceRule } from "./choose-rate.js";
import type { Part, Study } from "./load-study.js";
import type { ArmResult } from "./outcome.js";
import { conditions, findings } from "./prose.js";
import type { SweepResults } from "./sweep-file.js";
import { metricWords, resultTable, sweepTable } from "./tables.js";

export interface PartResult {
  part: Part;
  arms: readonly ArmResult[];
}

export function studyReport(study: Study, results: readonly PartResult[], sweep: SweepResults, date: Date): Report {
  const minutes = results.flatMap(({ arms }) => arms).reduce((sum, { outcome }) => sum + outcome.seconds / 60, 0);
  return {
    title: study.title,
    subtitle: study.description,
    date: date.toISOString().slice(0, 10),
    footer: `llmeff ${version()} · llmeff study ${study.name} · ${minutes.toFixed(1)} minutes of training`,
    sections: [
      summarySection(results),
      ...results.map(partSection),
      ...sampleSections(results),
      sweepSection(results, sweep),
      configSection(results),
      { title: "Machine", blocks: [{ kind: "facts", facts: infoFacts(collectInfo()) }] },
    ],
  };
}

function summarySection(results: readonly PartResult[]): Section {
  const text = results.map(({ part, arms }) => `${part.title}: ${findings(part, arms)}`).join("\n\n");
  return { title: "Findings", blocks: [{ kind: "prose", text }] };
}

function partSection({ part, arms }: PartResult): Section {
  const described = arms.filter(({ description }) => description !== undefined);
  const blocks: Block[] = [
    ...(part.description === undefined ? [] : [{ kind: "prose" as const, text: part.description }]),
    { kind: "prose", text: conditions(part, arms) },
    ...(described.length === 0
      ? []
      : [
          {
            kind: "facts" as const,
            facts: described.map(({ name, description }) => ({ name, value: description! })),
          },
        ]),
    { kind: "table", ...resultTable(part, arms) },
    evaluationChart(part, arms),
    trainingChart(part, arms),
  ];
  return { title: part.title, blocks };
}

function evaluationChart(part: Part, arms: readonly ArmResult[]): LineChart {
  const { name, unit, target } = metricWords(part);
  const accuracy = part.metric === "accuracy";
  return {
    kind: "lineChart",
    title: `${name} by tokens`,
    caption: "Every point is an evaluation on the same validation sequences; the band is one standard error.",
    x: { label: "training tokens" },
    y: { label: unit ?? name.toLowerCase(), ...(accuracy ? { style: "percent", max: 1 } : { scale: "log" }) },
    series: arms.map((arm): Series => {
      const { tokens, values, standardErrors } = arm.evaluations;
      const error = standardErrors.map((e) => (Number.isFinite(e) ? e : 0));
      return {
        name: arm.name,
        x: tokens,
        y: values,
        low: values.map((value, i) => value - error[i]!),
        high: values.map((value, i) => value + error[i]!),
      };
    }),
    references: [{ value: part.target, label: `target: ${target}` }],
  };
}

function trainingChart(part: Part, arms: readonly ArmResult[]): LineChart {
  return {
    kind: "lineChart",
    title: "Training loss by tokens",
    x: { label: "training tokens" },
    y: { label: metricWords(part).unit ?? "nats/answer", scale: "log" },
    smoothing: 20,
    series: arms.map(({ name, trainingLoss }) => ({ name, x: trainingLoss.tokens, y: trainingLoss.values })),
  };
}

function sampleSections(results: readonly PartResult[]): Section[] {
  const blocks = results.flatMap(({ part, arms }): Block[] => {
    const samples = arms.flatMap(({ name, outcome }) =>
      outcome.sample === null ? [] : [{ title: name, prompt: part.sample!.prompt, text: outcome.sample }],
    );
    if (samples.length === 0) return [];
    const { temperature = 1, seed = 0, tokens } = part.sample!;
    const text = `${part.title}: every arm continues the same prompt for ${tokens} tokens with seed ${seed} and temperature ${temperature}.`;
    return [
      { kind: "prose", text },
      { kind: "samples", samples },
    ];
  });
  return blocks.length === 0 ? [] : [{ title: "What they write", blocks }];
}

function sweepSection(results: readonly PartResult[], sweep: SweepResults): Section {
  const tables = results.flatMap(({ part }): Block[] => {
    const swept = sweep.parts.find(({ name }) => name === part.name)!;
    return [{ kind: "table", ...sweepTable(swept) }];
  });
  return { title: "Learning rates", blocks: [{ kind: "prose", text: choiceRule }, ...tables] };
}

function configSection(results: readonly PartResult[]): Section {
  return {
    title: "Configs",
    blocks: results.flatMap(({ part, arms }) =>
      arms.map(({ name, config }): Block => ({ kind: "json", title: `${part.name}/${name}`, value: toJson(config) })),
    ),
  };
}
