/** The study's page: findings, tables, curves, samples, configs, machine. */
import type { Block, LineChart, Report, Section, Series } from "@llmeff/report";
import { collectInfo, infoFacts } from "../commands/info.js";
import { toJson } from "../config/merge.js";
import { version } from "../version.js";
import { type ArmResult, averagedOn, bandOf } from "./arm-result.js";
import { choiceRule } from "./choose-rate.js";
import type { Part, Study } from "./load-study.js";
import { conditions, findings } from "./prose.js";
import type { SweepResults } from "./sweep-file.js";
import { differenceTable, metricWords, partsTable, resultTable, sweepTable } from "./tables.js";

export interface PartResult {
  part: Part;
  arms: readonly ArmResult[];
}

export function studyReport(study: Study, results: readonly PartResult[], sweep: SweepResults, date: Date): Report {
  const minutes = results.flatMap(({ arms }) => arms).reduce((sum, { seconds }) => sum + seconds / 60, 0);
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
      {
        title: "Machine",
        blocks: [{ kind: "facts", facts: infoFacts(collectInfo(study.parts[0]?.arms[0]?.config.device)) }],
      },
    ],
  };
}

function summarySection(results: readonly PartResult[]): Section {
  const text = results.map(({ part, arms }) => `${part.title}: ${findings(part, arms)}`).join("\n\n");
  return { title: "Findings", blocks: [{ kind: "prose", text }] };
}

function partSection({ part, arms }: PartResult): Section {
  const described = arms.filter(({ description }) => description !== undefined);
  const further = [differenceTable(part, arms), partsTable(part, arms)].filter((table) => table !== undefined);
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
    ...further.map((table) => ({ kind: "table" as const, ...table })),
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
    caption:
      part.seeds.length > 1
        ? `Lines are medians over ${part.seeds.length} seeds, bands go from the worst to the best of them. A run that ended before others counts on with its last value.`
        : "Every point is an evaluation on the same validation sequences; the band is one standard error.",
    x: { label: "training tokens" },
    y: { label: unit ?? name.toLowerCase(), ...(accuracy ? { style: "percent", max: 1 } : { scale: "log" }) },
    series: arms.map(evaluationSeries),
    references: [{ value: part.target, label: `target: ${target}` }],
  };
}

function evaluationSeries({ name, runs }: ArmResult): Series {
  if (runs.length > 1) return { name, ...bandOf(runs.map(({ evaluations }) => evaluations)) };
  const { tokens, values, standardErrors } = runs[0]!.evaluations;
  const error = standardErrors.map((e) => (Number.isFinite(e) ? e : 0));
  return {
    name,
    x: tokens,
    y: values,
    low: values.map((value, i) => value - error[i]!),
    high: values.map((value, i) => value + error[i]!),
  };
}

function trainingChart(part: Part, arms: readonly ArmResult[]): LineChart {
  const several = part.seeds.length > 1;
  const balanced = arms.some(({ config: { model } }) => model.experts !== undefined);
  const caption = [
    ...(several ? ["Means between two evaluations; lines and bands over the seeds as above."] : []),
    ...(balanced
      ? ["Of mixtures of experts, with the losses that balance them; the validation loss is without these."]
      : []),
  ];
  return {
    kind: "lineChart",
    title: "Training loss by tokens",
    ...(caption.length > 0 && { caption: caption.join(" ") }),
    ...(!several && { smoothing: 20 }),
    x: { label: "training tokens" },
    y: { label: metricWords(part).unit ?? "nats/answer", scale: "log" },
    series: arms.map(trainingSeries),
  };
}

function trainingSeries({ name, runs }: ArmResult): Series {
  if (runs.length > 1) {
    const averaged = runs.map(({ evaluations, trainingLoss }) => averagedOn(evaluations.tokens, trainingLoss));
    return { name, ...bandOf(averaged) };
  }
  const { tokens, values } = runs[0]!.trainingLoss;
  return { name, x: tokens, y: values };
}

function sampleSections(results: readonly PartResult[]): Section[] {
  const blocks = results.flatMap(({ part, arms }): Block[] => {
    const samples = arms.flatMap(({ name, sample }) =>
      sample === null ? [] : [{ title: name, prompt: part.sample!.prompt, text: sample }],
    );
    if (samples.length === 0) return [];
    const { temperature = 1, seed = 0, tokens } = part.sample!;
    const text = `${part.title}: every arm${part.seeds.length > 1 ? `, trained with its first seed (${part.seeds[0]}),` : ""} continues the same prompt for ${tokens} tokens with seed ${seed} and temperature ${temperature}.`;
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
      arms.map(({ name, config }): Block => {
        const [seed, ...others] = part.seeds;
        const also = others.length === 0 ? "" : ` (seed ${seed}; the same with ${others.join(", ")})`;
        return { kind: "json", title: `${part.name}/${name}${also}`, value: toJson({ ...config, seed }) };
      }),
    ),
  };
}
