/**
 * How concentrated the second moments of a network's gradients are, which Sketchy rests on (arXiv:2302.03764, section 5): eigenvalues of the
 * Kronecker factors' running averages while a language model trains, and of the same averages of normal numbers.
 */
import { fixed, printTable } from "../lib/report.mjs";
import { writeFigure } from "./lib/figures.mjs";
import { ranks } from "./lib/spectrum.mjs";
import { mean } from "./lib/statistics.mjs";
import { runTrials } from "./lib/trials.mjs";

export const title = "Eigenvalues of the Kronecker factors of a language model's gradients";
export const sizes = { steps: 1500 };
export const names = [];
export const dtypes = ["float32"];

const kinds = ["q", "k", "v", "o", "gate", "up", "down"];
const sides = { outputs: "L, outputs", inputs: "R, inputs" };
const kindOf = (name) => /(\w+)_proj/.exec(name)[1];

export async function run({ sizes: { steps }, ...options }) {
  const base = {
    config: { dModel: 512, numLayers: 4, numHeads: 8 },
    batchSize: 16,
    seqLen: 128,
    steps,
    seed: 1,
    beta2: 0.999,
    checkpoints: [
      ...new Set([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1].map((part) => Math.ceil(part * steps))),
    ],
    device: options.device,
  };
  const hyper = { learningRate: 1e-3, beta1: 0.9, beta2: 0.99, weightDecay: 0.1 };
  const [trained, drawn] = await runTrials(
    "sketchy-spectra.mjs",
    [
      { gradients: "adamw", hyper, ...base },
      { gradients: "normal", ...base },
    ],
    options,
  );

  const normal = (side, size) => drawn.rows.filter((row) => row.side === side && row.size === size).at(-1);
  const rowsOf = (kind, side) => trained.rows.filter((row) => kindOf(row.name) === kind && row.side === side);
  printFacts({ steps, rowsOf, normal });
  for (const side of Object.keys(sides)) drawSide({ side, steps, rowsOf, normal, trained });
  console.log(`validation loss ${trained.loss}, ${trained.seconds} s of training`);
}

/** Means over the layers, at the last step. */
function printFacts({ steps, rowsOf, normal }) {
  const rows = Object.keys(sides).flatMap((side) =>
    kinds.map((kind) => {
      const mine = rowsOf(kind, side).filter((row) => row.step === steps);
      const { size } = mine[0];
      const share = (of) => `${(100 * mean(mine.map(of))).toFixed(1)} %`;
      return [
        `${kind}, ${sides[side]}`,
        size,
        share((row) => row.topQuarter),
        `${(100 * normal(side, size).topQuarter).toFixed(1)} %`,
        ...ranks.map((_, i) => share((row) => row.top[i])),
        fixed(mean(mine.map((row) => row.intrinsicDimension))),
        fixed(normal(side, size).intrinsicDimension),
      ];
    }),
  );
  const tops = ranks.map((rank) => `top ${rank}`);
  printTable(["factor", "size", "top 25 %", "normal", ...tops, "tr/λ₁", "normal"], rows);
}

/** Shares and dimensions over the steps, and the last spectrum, each the mean of a kind's layers. */
function drawSide({ side, steps, rowsOf, normal, trained }) {
  const x = { label: "step", scale: "log" };
  const over = (field) =>
    kinds.map((kind) => {
      const rows = rowsOf(kind, side);
      const at = [...new Set(rows.map((row) => row.step))];
      return { name: kind, x: at, y: at.map((step) => mean(rows.filter((r) => r.step === step).map((r) => r[field]))) };
    });
  const size = rowsOf("q", side)[0].size;
  const of = `${sides[side]}, mean over the layers`;
  writeFigure(`sketchy-spectra-mass-${side}`, {
    title: `Share of the largest quarter of the eigenvalues: ${of}`,
    x,
    y: { label: "share of the trace", style: "percent", min: 0, max: 1 },
    series: over("topQuarter"),
    references: [{ value: normal(side, size).topQuarter, label: "normal numbers" }],
  });
  writeFigure(`sketchy-spectra-dimension-${side}`, {
    title: `Intrinsic dimension tr/λ₁: ${of}`,
    x,
    y: { label: "tr/λ₁", scale: "log" },
    series: over("intrinsicDimension"),
    references: [{ value: normal(side, size).intrinsicDimension, label: "normal numbers" }],
  });
  writeFigure(`sketchy-spectra-${side}`, {
    title: `Eigenvalues after ${steps} steps: ${of}`,
    x: { label: "number of the eigenvalue", scale: "log" },
    y: { label: "share of the trace", scale: "log", min: 1e-6 },
    series: kinds.map((kind) => {
      const mine = trained.spectra.filter((one) => one.side === side && kindOf(one.name) === kind);
      const { points } = mine[0];
      return {
        name: kind,
        x: points.map(([i]) => i),
        y: points.map((_, p) => mean(mine.map((one) => one.points[p][1]))),
      };
    }),
  });
}
