/**
 * What Sketchy loses and saves by its rank: the loss of a small language model and the bytes of the optimizer's state, with AdamW (no
 * statistics of directions) and Shampoo (all of them) at the ends. The peak learning rate of each rule is the best of `points` on one grid;
 * the best runs with `seeds` seeds.
 */
import { fixed, printTable } from "../lib/report.mjs";
import { writeFigure } from "./lib/figures.mjs";
import { adamwNumbers, shampooNumbers, sketchyNumbers } from "./lib/state-formulas.mjs";
import { mean, standardError } from "./lib/statistics.mjs";
import { runTrials } from "./lib/trials.mjs";

export const title = "Sketchy by rank, between AdamW and Shampoo: characters of Shakespeare's plays";
export const sizes = { steps: 200, points: 3, seeds: 2 };
export const dtypes = ["float32"];

const ranks = [8, 16, 32, 64, 128, 256];
/** Statistics and roots are renewed at every so many steps, from the gradients of these steps alone. */
const every = 20;
const matrixRule = { momentum: 0.9, nesterov: false, ema: true, graftBeta2: 0.99, beta2: 0.95, mergeDims: 1 };

const rules = {
  adamw: {
    label: "AdamW",
    trial: { rule: "adamw", hyper: { beta1: 0.9, beta2: 0.99, weightDecay: 0 } },
    numbers: adamwNumbers,
  },
  ...Object.fromEntries(
    ranks.map((rank) => [
      `sketchy${rank}`,
      {
        label: `S-Shampoo, rank ${rank}`,
        trial: { rule: "sketchy", hyper: { ...matrixRule, rank, updateEvery: every } },
        numbers: (shapes) => sketchyNumbers(shapes, rank),
        rank,
      },
    ]),
  ),
  shampoo: {
    label: "Shampoo",
    trial: { rule: "shampoo", hyper: { ...matrixRule, statEvery: every, rootEvery: every } },
    numbers: shampooNumbers,
  },
};
export const names = Object.keys(rules);

const [lowest, highest] = [3e-4, 3e-3];
const ratesOf = (points) =>
  Array.from({ length: points }, (_, i) =>
    Number((lowest * (highest / lowest) ** (points === 1 ? 0.5 : i / (points - 1))).toPrecision(4)),
  );
const lossOf = ({ loss }) => loss ?? Number.POSITIVE_INFINITY;

export async function run({ names: chosen, sizes: { steps, points, seeds }, ...options }) {
  const trial = (name, learningRate, seed, more = {}) => ({
    rule: rules[name].trial.rule,
    hyper: { learningRate, ...rules[name].trial.hyper },
    config: { dModel: 256, numLayers: 4, numHeads: 4 },
    batchSize: 32,
    seqLen: 128,
    steps,
    seed,
    device: options.device,
    ...more,
  });
  const runAll = (trials, workers = options.workers) => runTrials("sketchy-rank.mjs", trials, { ...options, workers });

  // Alone on the machine, one after the other.
  const timings = await runAll(
    chosen.map((name) => trial(name, lowest, 1, { batchSize: 16, steps: 81, every, timed: true })),
    1,
  );
  const rates = ratesOf(points);
  const searches = await runAll(chosen.flatMap((name) => rates.map((rate) => trial(name, rate, 1))));
  const bestRates = chosen.map((_, i) => {
    const losses = searches.slice(i * points, (i + 1) * points).map(lossOf);
    return rates[losses.indexOf(Math.min(...losses))];
  });
  const repeats = await runAll(
    chosen.flatMap((name, i) => Array.from({ length: seeds }, (_, seed) => trial(name, bestRates[i], seed + 1))),
  );
  const rows = chosen.map((name, i) => {
    const runs = repeats.slice(i * seeds, (i + 1) * seeds);
    const { shapes, stateBytes } = runs[0];
    return {
      ...rules[name],
      rate: bestRates[i],
      searched: searches.slice(i * points, (i + 1) * points).map(lossOf),
      runs,
      loss: mean(runs.map(lossOf)),
      error: standardError(runs.map(lossOf)),
      stateBytes,
      formula: 4 * rules[name].numbers(shapes),
      timing: timings[i],
    };
  });
  printTable(
    ["rule", "loss", "± s.e.", "peak rate", "state, bytes", "formula", "ms a step", "with statistics"],
    rows.map(({ label, loss, error, rate, stateBytes, formula, timing: { otherMs, dueMs } }) => [
      label,
      fixed(loss, 4),
      fixed(error, 4),
      rate,
      stateBytes,
      formula,
      fixed(otherMs),
      fixed(dueMs),
    ]),
  );
  printTable(
    ["loss at peak rate", ...rates],
    rows.map(({ label, searched }) => [label, ...searched.map((loss) => fixed(loss, 4))]),
  );
  for (const { label, stateBytes, formula } of rows) {
    if (stateBytes !== formula)
      throw new Error(`[evidence] ${label} keeps ${stateBytes} bytes; the formula says ${formula}.`);
  }
  draw(rows);
}

function draw(rows) {
  const sketches = rows.filter(({ rank }) => rank !== undefined);
  const ends = rows.filter(({ rank }) => rank === undefined);
  const byRank = (title, label, of, errorOf = () => 0) => ({
    title,
    x: { label: "rank", scale: "log" },
    y: { label },
    series: [
      {
        name: "S-Shampoo",
        x: sketches.map(({ rank }) => rank),
        y: sketches.map(of),
        low: sketches.map((row) => of(row) - errorOf(row)),
        high: sketches.map((row) => of(row) + errorOf(row)),
      },
    ],
    references: ends.map((row) => ({ value: of(row), label: row.label })),
  });
  writeFigure(
    "sketchy-rank-loss",
    byRank(
      "Validation loss by rank (band: ± one standard error)",
      "nats a character",
      (row) => row.loss,
      (row) => row.error ?? 0,
    ),
  );
  writeFigure(
    "sketchy-rank-memory",
    byRank("State of the optimizer by rank", "MB", (row) => row.stateBytes / 1e6),
  );
  writeFigure("sketchy-rank-steps", {
    title: "Training loss, means of 20 steps and of all seeds",
    x: { label: "step" },
    y: { label: "nats a character", scale: "log" },
    series: rows.map(({ label, runs }) => ({
      name: label,
      x: runs[0].losses.map(([step]) => step),
      y: runs[0].losses.map((_, i) => mean(runs.map((run) => run.losses[i]?.[1] ?? Number.NaN))),
    })),
  });
}
