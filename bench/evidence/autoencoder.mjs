/**
 * The autoencoder benchmark of SONew's authors: every optimizer with the same tuning budget, the best settings over several seeds, and the authors' own
 * untuned run of tridiagonal SONew again.
 */
import { fixed, printTable } from "../lib/report.mjs";
import { mean } from "./lib/means.mjs";
import { rules } from "./lib/rules.mjs";
import { Workers } from "./lib/trials.mjs";
import { printTuned, tune } from "./lib/tuning.mjs";

export const title = "MNIST autoencoder, loss over the training set (sum of 784 cross-entropies)";
export const sizes = { epochs: 100, tuneEpochs: 20, points: 16, finalists: 3, seeds: 3 };

/**
 * The run that the authors logged (their count of epochs begins with 0): β (0.9, 0.999), eps 1e-8 and rate 1e-4, no graft, an edge dropped at 1e-7 of
 * the diagonal.
 */
const logged = {
  rule: "sonew1",
  hyper: { learningRate: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, graft: "none", gamma: 1e-7 },
  losses: [
    [1, 90.726],
    [2, 75.648],
    [63, 59.07],
    [89, 54.36],
  ],
};

export async function run({ names, dtype, sizes, device, workers: count, results }) {
  const { epochs, seeds } = sizes;
  const workers = new Workers("autoencoder.mjs", {
    count,
    device,
    results,
    costOf: ({ rule, epochs }) => epochs * rules[rule].cost,
  });
  const common = { dtype, device };
  const trial = ({ rule, hyper, seed, length }) => ({
    rule,
    hyper,
    ...common,
    seed,
    epochs: length,
    ...(length === epochs ? { curve: true } : {}),
  });
  const replication = Array.from({ length: seeds }, (_, seed) => ({
    rule: logged.rule,
    hyper: logged.hyper,
    ...common,
    seed,
    epochs: 100,
    evaluate: logged.losses.map(([epoch]) => epoch + 1),
    curve: true,
  }));
  const withReplication = dtype === "float32" && names.includes(logged.rule);
  const [rows, replicas] = await Promise.all([
    Promise.all(names.map((name) => tune(name, rules[name], { ...sizes, workers, trial }))),
    withReplication ? workers.run(replication) : [],
  ]);
  workers.end();
  printTuned(rows);
  if (withReplication) printReplication(replicas);
}

function printReplication(replicas) {
  console.log("\ntridiagonal SONew with the authors' untuned settings, beside the run that they logged");
  printTable(
    ["after epoch", "loss", "theirs", "difference"],
    logged.losses.map(([epoch, theirs]) => {
      const ours = mean(replicas.map(({ losses }) => losses.find(([at]) => at === epoch + 1)?.[1] ?? Number.NaN));
      return [epoch, fixed(ours, 2), fixed(theirs, 2), `${fixed(100 * (ours / theirs - 1), 1)} %`];
    }),
  );
}
