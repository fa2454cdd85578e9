/**
 * The autoencoder benchmark of SONew's authors: every optimizer after the same tuning, the best settings over several seeds, and the authors' own
 * untuned run of tridiagonal SONew again.
 */
import { fixed, printTable } from "../lib/report.mjs";
import { median } from "../lib/timing.mjs";
import { writeFigure } from "./lib/figures.mjs";
import { rules } from "./lib/rules.mjs";
import { runTrials, Workers } from "./lib/trials.mjs";
import { printTuned, summary, tune } from "./lib/tuning.mjs";

export const title = "MNIST autoencoder, loss over the training set (sum of 784 cross-entropies)";
export const sizes = { epochs: 100, tuneEpochs: 10, points: 16, finalists: 2, seeds: 3 };

const file = "autoencoder.mjs";

/** The run that the authors logged, its epochs counted from 1: no graft, and an edge dropped at 1e-7 of the diagonal. */
const logged = {
  rule: "sonew1",
  hyper: { learningRate: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, gamma: 1e-7 },
  epochs: 100,
  losses: new Map([
    [2, 90.726],
    [3, 75.648],
    [64, 59.07],
    [90, 54.36],
  ]),
};

export async function run({ names, dtype, sizes: { epochs, tuneEpochs, seeds, ...budget }, ...options }) {
  const { device, results } = options;
  const trialOf = (name, seeds, more) => (hyper, length) => ({
    rule: rules[name].as ?? name,
    hyper,
    dtype,
    device,
    seeds,
    epochs: length,
    ...more,
  });
  const judges = Array.from({ length: seeds }, (_, i) => i + 1); // 0 is that of the search
  const costOf = (trial) => trial.epochs * trial.seeds.length * rules[trial.rule].cost;
  const workers = new Workers(file, { count: options.workers, device, results, costOf });
  const run = (trials) => workers.run(trials);

  const rowOf = async (name) => {
    const lengths = [tuneEpochs, epochs];
    const tuned = await tune(rules[name], { ...budget, lengths, trial: trialOf(name, [0]), run });
    const [judged] = await run([trialOf(name, judges, { curve: true })(tuned.hyper, epochs)]);
    return { name, ...judged, ...summary(rules[name], tuned, judged.losses?.at(-1)?.[1] ?? []) };
  };
  const replicates = dtype === "float32" && names.includes(logged.rule);
  const replica = trialOf(logged.rule, judges, { evaluate: [...logged.losses.keys()], curve: true });
  const [rows, [replicated]] = await Promise.all([
    Promise.all(names.map(rowOf)),
    run(replicates ? [replica(logged.hyper, logged.epochs)] : []),
  ]);
  workers.end();

  // One after the other, alone on the machine.
  const timings = await runTrials(
    file,
    names.map((name, i) => trialOf(name, [0], { timed: true })(rows[i].hyper, 2)),
    { device, results, workers: Math.min(1, options.workers) },
  );
  printTuned(
    rows.map((row, i) => ({ ...row, stepMs: timings[i].stepMs })),
    `after ${tuneEpochs} epochs`,
    {
      "ms a step": ({ stepMs }) => fixed(stepMs, 2),
      "state, MB": ({ stateBytes }) => stateBytes && fixed(stateBytes / 1e6, 1),
    },
  );
  draw(rows, dtype);
  if (replicated?.losses) printReplication(replicated.losses);
}

/** The first epochs, which go from 545 to 100, would leave no room for what follows. */
const highest = 90;

/** What each figure shows of the rules that were run. */
const figures = {
  elementwise: [
    "sgd",
    "momentum",
    "nesterov",
    "adagrad",
    "rmsprop",
    "adam",
    "sonew0",
    "sonew1",
    "sonew1Adam",
    "sonew4Adam",
    "sonew10Adam",
  ],
  matrices: ["adam", "sonew1Known", "rfdSon", "shampooKnown", "sketchy", "muon", "soap"],
};

function draw(rows, dtype) {
  for (const [figure, shown] of Object.entries(figures)) {
    // A curve that ends above the frame would be in the legend alone.
    const chosen = rows.filter(({ name, means }) => shown.includes(name) && means?.at(-1) < highest);
    if (chosen.length < 2) continue;
    writeFigure(`autoencoder-${figure}-${dtype}`, {
      title: `MNIST autoencoder in ${dtype}: training loss of each epoch, mean of all seeds`,
      x: { label: "epoch" },
      y: { label: "loss", scale: "log", max: highest },
      series: chosen.map(({ label, means }) => ({ name: label, x: means.map((_, i) => i + 1), y: means })),
    });
  }
}

/** Beside the median of the seeds: the authors logged one run. */
function printReplication(losses) {
  console.log("\ntridiagonal SONew with the authors' untuned settings, beside the run that they logged");
  printTable(
    ["epoch", "each seed", "median", "theirs", "difference"],
    [...logged.losses].map(([epoch, theirs]) => {
      const each = losses.find(([at]) => at === epoch)?.[1] ?? [Number.NaN];
      const ours = median(each);
      const seeds = each.map((loss) => fixed(loss, 2)).join(" ");
      return [epoch, seeds, fixed(ours, 2), fixed(theirs, 2), `${fixed(100 * (ours / theirs - 1), 1)} %`];
    }),
  );
}
