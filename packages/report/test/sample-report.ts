/** A report of the size and kind of a study, from formulas: for the tests, and for looking at the design. */
import type { LineChart, Report, Series, Table } from "../src/index.js";

interface Arm {
  readonly name: string;
  readonly floor: number;
  readonly speed: number;
  readonly tokensPerSecond: number;
}

const ARMS: readonly Arm[] = [
  { name: "dot-product · AdamW", floor: 1.58, speed: 1, tokensPerSecond: 21_400 },
  { name: "dot-product · SONew", floor: 1.55, speed: 1.35, tokensPerSecond: 20_100 },
  { name: "2-simplicial · AdamW", floor: 1.53, speed: 1.1, tokensPerSecond: 15_900 },
  { name: "2-simplicial · SONew", floor: 1.5, speed: 1.5, tokensPerSecond: 15_200 },
];

/** Numbers in [-1, 1) from a linear congruential generator. */
function noise(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

function lossAt(arm: Arm, step: number): number {
  return arm.floor + 2.6 / (1 + (step * arm.speed) / 60) ** 0.9;
}

function trainingLoss(arm: Arm, index: number): Series {
  const random = noise(index + 1);
  const x = Array.from({ length: 3000 }, (_, i) => (i + 1) * 4096);
  return { name: arm.name, x, y: x.map((_, i) => lossAt(arm, i) + 0.07 * random()) };
}

function validationLoss(arm: Arm, index: number): Series {
  const random = noise(index + 11);
  const x = Array.from({ length: 15 }, (_, i) => (i + 1) * 200 * 4096);
  const y = x.map((_, i) => lossAt(arm, (i + 1) * 200) + 0.04 + 0.008 * random());
  return { name: arm.name, x, y, low: y.map((v) => v - 0.03), high: y.map((v) => v + 0.03) };
}

function accuracy(name: string, middle: number): Series {
  const x = Array.from({ length: 41 }, (_, i) => i * 250);
  return { name, x, y: x.map((step) => 0.0625 + 0.93 / (1 + Math.exp((middle - step) / (middle / 8)))) };
}

const lossChart: LineChart = {
  kind: "lineChart",
  title: "Training loss",
  caption: "Cross-entropy of each training step. All arms read the same batches in the same order.",
  x: { label: "tokens" },
  y: { label: "loss, nats/char", scale: "log" },
  series: ARMS.map(trainingLoss),
  smoothing: 50,
};

const validationChart: LineChart = {
  kind: "lineChart",
  title: "Validation loss",
  caption: "Mean over the held-out text; the bands are two standard errors wide on each side.",
  x: { label: "tokens", scale: "log" },
  y: { label: "loss, nats/char", max: 2.6 },
  series: ARMS.map(validationLoss),
  references: [{ value: 2.45, label: "bigram model 2.45" }],
};

const accuracyChart: LineChart = {
  kind: "lineChart",
  title: "Accuracy",
  caption: "Share of held-out compositions answered right. Chance is 1 in 16.",
  x: { label: "step" },
  y: { label: "accuracy", min: 0, max: 1, style: "percent" },
  series: [
    accuracy("1 layer, 2-simplicial", 1800),
    accuracy("2 layers, dot-product", 8200),
    { ...accuracy("1 layer, dot-product", 1e6), y: Array.from({ length: 41 }, (_, i) => 0.0625 + 0.0012 * i) },
  ],
  references: [{ value: 0.95, label: "target 95 %" }],
};

export const resultTable: Table = {
  caption: "Results at 12.3 M tokens",
  columns: [
    { header: "Arm" },
    { header: "Parameters", style: "compact" },
    { header: "Tokens", style: "compact" },
    { header: "Compute", unit: "FLOPs", style: "scientific" },
    { header: "Validation", unit: "nats/char", best: "min" },
    { header: "Speed", unit: "tokens/s", style: "integer", best: "max" },
    { header: "Time", style: "duration", best: "min" },
  ],
  rows: ARMS.map((arm, i) => [
    arm.name,
    812_416 + i * 2048,
    12_288_000,
    6.1e13 * (1 + 0.1 * i),
    { value: lossAt(arm, 3000) + 0.04, standardError: 0.0061 },
    arm.tokensPerSecond,
    12_288_000 / arm.tokensPerSecond,
  ]),
  note: "± is one standard error over the held-out windows.",
};

export function sampleReport(): Report {
  return {
    title: "Token efficiency of 2-simplicial attention and SONew",
    subtitle: "Does looking at pairs of tokens, or a better preconditioner, learn more from the same text?",
    date: "23 November 2026",
    footer: "Made by llmeff. The numbers on this page come from the files beside it: metrics.jsonl and config.json.",
    sections: [
      {
        title: "Summary",
        blocks: [
          {
            kind: "facts",
            display: "headline",
            facts: [
              { name: "best validation loss", value: "1.54", unit: "nats/char" },
              { name: "tokens to 95 %, 2-simplicial", value: "0.30", unit: "M" },
              { name: "tokens to 95 %, two layers", value: "1.38", unit: "M" },
              { name: "four arms, wall clock", value: "48", unit: "min" },
            ],
          },
          {
            kind: "prose",
            text: "Four arms of equal size read the same text in the same order. The 2-simplicial arms end lower for the same number of tokens and take longer for each; which of the two matters depends on whether text or time is short.\n\nEach arm's learning rate comes from a sweep of the same size for every arm.",
          },
        ],
      },
      { title: "Relation composition", blocks: [accuracyChart] },
      { title: "Character-level text", blocks: [{ kind: "table", ...resultTable }, lossChart, validationChart] },
      {
        title: "What the models write",
        blocks: [
          {
            kind: "samples",
            samples: ARMS.map((arm) => ({
              title: arm.name,
              prompt: "ROMEO:\n",
              text: "What say you to the king, and let me go\nThat I may speak of this? The day is done,\nAnd we that love must <b>wait</b> & hold our tongues.\n\nJULIET:\nThen stay.",
            })),
          },
        ],
      },
      {
        title: "How it was run",
        blocks: [
          {
            kind: "facts",
            facts: [
              { name: "Processor", value: "Example CPU, 2 cores" },
              { name: "Memory", value: "8.0", unit: "GiB" },
              { name: "System", value: "linux 6.1, x64" },
              { name: "Node.js", value: "20.19.0" },
            ],
          },
          ...ARMS.slice(0, 2).map((arm) => ({
            kind: "json" as const,
            title: `Config: ${arm.name}`,
            value: { model: { layers: 4, width: 128 }, optimizer: { name: "adamw", learningRate: 3e-3 }, seed: 7 },
          })),
        ],
      },
    ],
  };
}
