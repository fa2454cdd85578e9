/**
 * S-AdaGrad and the five baselines of Sketchy's convex experiments (arXiv:2302.03764, section 6) on streams of logistic losses: 49 settings each
 * on a tuning stream, the best of them on other examples, as many, beside the best fixed weights in hindsight.
 */
import { fixed, printTable } from "../lib/report.mjs";
import { writeFigure } from "./lib/figures.mjs";
import { mean, standardError } from "./lib/statistics.mjs";
import { streams } from "./lib/streams.mjs";
import { runTrials } from "./lib/trials.mjs";

export const title = "Online logistic regression: S-AdaGrad and its baselines";
export const sizes = { steps: 5000, seeds: 3 };
export const dtypes = ["float32"];

/** Rows of every sketch, as the authors'. */
const sketchSize = 10;
const curvePoints = 100;
const decades = (from, to, count) =>
  Array.from({ length: count }, (_, i) => Number((from * (to / from) ** (i / (count - 1))).toPrecision(6)));

// Six decades of rates as the authors', one decade higher: their best rates of ours lie at the upper end of [1e-6, 1]. Their deltas are from the same
// interval, where FD-SON diverges on all three streams: off its sketch it steps by 1/delta.
const rates = decades(1e-5, 10, 49).map((learningRate) => ({ learningRate, delta: 0 }));
const grid = decades(1e-5, 10, 7).flatMap((learningRate) =>
  decades(1e-3, 1e3, 7).map((delta) => ({ learningRate, delta })),
);

const algorithms = {
  sAdagrad: { label: "S-AdaGrad", settings: rates },
  rfdSon: { label: "RFD-SON", settings: rates },
  fdSon: { label: "FD-SON", settings: grid },
  adaFd: { label: "Ada-FD", settings: grid },
  ogd: { label: "OGD", settings: rates },
  adagrad: { label: "AdaGrad, diagonal", settings: rates },
};
export const names = Object.keys(algorithms);

const lossOf = ({ loss }) => loss ?? Number.POSITIVE_INFINITY;

export async function run({ names: chosen, sizes: { steps, seeds }, ...options }) {
  const runAll = (trials) => runTrials("online-convex.mjs", trials, options);
  const pairs = Object.keys(streams).flatMap((stream) => chosen.map((algorithm) => ({ stream, algorithm })));
  const tuned = await runAll(
    pairs.map(({ stream, algorithm }) => {
      const { settings } = algorithms[algorithm];
      return { stream, part: "tune", seed: 0, count: steps, algorithm, sketchSize, settings };
    }),
  );
  const best = pairs.map(({ algorithm }, i) => {
    const losses = tuned[i].losses.map((loss) => loss ?? Number.POSITIVE_INFINITY);
    return { algorithm, sketchSize, ...algorithms[algorithm].settings[losses.indexOf(Math.min(...losses))] };
  });
  const each = Array.from({ length: seeds }, (_, i) => i + 1);
  const played = (stream, seed) => ({ stream, part: "report", seed, count: steps, points: curvePoints });
  const reports = await runAll(
    pairs.flatMap(({ stream }, i) => each.map((seed) => ({ ...played(stream, seed), hyper: best[i] }))),
  );
  const fixedWeights = await runAll(Object.keys(streams).flatMap((stream) => each.map((seed) => played(stream, seed))));

  for (const [s, [stream, { label }]] of Object.entries(streams).entries()) {
    const hindsight = fixedWeights.slice(s * seeds, (s + 1) * seeds);
    const rows = pairs.flatMap((pair, i) =>
      pair.stream === stream
        ? [{ ...pair, hyper: best[i], tuned: tuned[i], runs: reports.slice(i * seeds, (i + 1) * seeds) }]
        : [],
    );
    show(stream, label, rows, hindsight, steps);
  }
}

function show(stream, label, rows, hindsight, steps) {
  const regrets = ({ runs }) => runs.map((run, i) => (lossOf(run) - lossOf(hindsight[i])) * steps);
  // Of the same streams: much of what a stream's order does to one algorithm it does to the others.
  const reference = rows.find(({ algorithm }) => algorithm === "sAdagrad");
  const behind = (row) => {
    if (reference === undefined || row === reference) return [undefined, undefined];
    const differences = regrets(row).map((regret, i) => regret - regrets(reference)[i]);
    return [fixed(mean(differences), 0), fixed(standardError(differences), 0)];
  };
  console.log(`\n${label}: ${steps} examples`);
  printTable(
    [
      "algorithm",
      "mean loss",
      "± s.e.",
      "regret",
      "± s.e.",
      "behind S-AdaGrad",
      "± s.e.",
      "mistakes",
      "rate",
      "delta",
      "state, numbers",
      "tuning loss",
    ],
    [
      ...rows.map((row) => {
        const { runs, hyper, tuned } = row;
        return [
          algorithms[row.algorithm].label,
          fixed(mean(runs.map(lossOf)), 4),
          fixed(standardError(runs.map(lossOf)), 4),
          fixed(mean(regrets(row)), 0),
          fixed(standardError(regrets(row)), 0),
          ...behind(row),
          `${((100 * mean(runs.map((run) => run.mistakes.at(-1)))) / steps).toFixed(2)} %`,
          hyper.learningRate.toPrecision(3),
          hyper.delta,
          runs[0].stateBytes / 4,
          fixed(tuned.loss, 4),
        ];
      }),
      [
        "fixed weights, in hindsight",
        fixed(mean(hindsight.map(lossOf)), 4),
        fixed(standardError(hindsight.map(lossOf)), 4),
        "0",
        undefined,
        undefined,
        undefined,
        `${((100 * mean(hindsight.map((run) => run.mistakes.at(-1)))) / steps).toFixed(2)} %`,
      ],
    ].map((row) => Array.from({ length: 12 }, (_, i) => row[i])),
  );
  const x = Array.from({ length: curvePoints }, (_, i) => ((i + 1) * steps) / curvePoints);
  const curve = (of) =>
    rows.map((row) => ({ name: algorithms[row.algorithm].label, x, y: x.map((_, i) => of(row, i)) }));
  writeFigure(`online-convex-${stream}-regret`, {
    title: `Regret against the best fixed weights in hindsight: ${label}`,
    x: { label: "examples" },
    y: { label: "regret, nats" },
    series: curve(({ runs }, i) => mean(runs.map((run, r) => run.losses[i] - hindsight[r].losses[i]))),
  });
  writeFigure(`online-convex-${stream}-loss`, {
    title: `Mean loss so far: ${label}`,
    x: { label: "examples", scale: "log" },
    y: { label: "nats an example" },
    series: curve(({ runs }, i) => mean(runs.map((run) => run.losses[i])) / x[i]),
    references: [{ value: mean(hindsight.map(lossOf)), label: "fixed weights, in hindsight" }],
  });
}
