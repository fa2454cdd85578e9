/**
 * The autoencoder benchmark of SONew's authors: every optimizer with the same tuning budget, the best settings over several seeds.
 *
 * 1. `points` quasi-random settings of every rule, trained for `tuneEpochs` epochs;
 * 2. the best `finalists` of them for all `epochs`;
 * 3. the best of these with `seeds` other seeds: mean and standard error of the loss over the whole training set.
 */
import { fixed, printTable } from "../lib/report.mjs";
import { rules } from "./lib/rules.mjs";
import { points } from "./lib/search.mjs";
import { runTrials } from "./lib/trials.mjs";

export const title = "MNIST autoencoder, loss over the training set (sum of 784 cross-entropies)";
export const sizes = { epochs: 100, tuneEpochs: 20, points: 16, finalists: 3, seeds: 3 };

const lossOf = ({ loss }) => loss ?? Number.POSITIVE_INFINITY;
const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;
/** Of their mean; one value has none. */
const standardError = (values) =>
  values.length < 2 ? undefined : Math.sqrt(mean(values.map((x) => (x - mean(values)) ** 2)) / (values.length - 1));

/** The `count` of `trials` with the lowest losses. */
function best(trials, results, count) {
  const order = trials.map((_, i) => i).sort((a, b) => lossOf(results[a]) - lossOf(results[b]));
  return order.slice(0, count).map((i) => trials[i]);
}

export async function run({
  names,
  dtype,
  sizes: { epochs, tuneEpochs, points: budget, finalists, seeds },
  ...options
}) {
  const runAll = (trials) => runTrials("autoencoder.mjs", trials, options);
  const trial = (rule, hyper, seed, length) => ({
    rule,
    hyper,
    dtype,
    device: options.device,
    seed,
    epochs: length,
    evaluateEvery: Math.ceil(length / 10),
  });

  const searches = names.map((rule) =>
    points(rules[rule].space, budget).map((hyper) => trial(rule, hyper, 0, tuneEpochs)),
  );
  const tuned = await runAll(searches.flat());
  const finals = searches.map((trials, i) =>
    best(trials, tuned.slice(i * budget), finalists).map(({ rule, hyper }) => trial(rule, hyper, 0, epochs)),
  );
  const finalLosses = await runAll(finals.flat());
  const winners = finals.map((trials, i) => best(trials, finalLosses.slice(i * finalists), 1)[0]);
  const repeated = winners.map(({ rule, hyper }) =>
    Array.from({ length: seeds }, (_, seed) => trial(rule, hyper, seed + 1, epochs)),
  );
  const repeats = await runAll(repeated.flat());

  const rows = winners.map(({ rule, hyper }, i) => {
    const mine = repeats.slice(i * seeds, (i + 1) * seeds);
    const losses = mine.map(lossOf);
    return { rule, hyper, loss: mean(losses), error: standardError(losses), ...mine[0] };
  });
  printTable(
    ["rule", "loss", "± s.e.", "seconds", "state, MB", "settings"],
    rows.map(({ rule, hyper, loss, error, seconds, stateBytes }) => [
      rules[rule].label,
      fixed(loss, 2),
      fixed(error, 2),
      fixed(seconds, 1),
      fixed(stateBytes / 1e6, 1),
      Object.entries(hyper)
        .map(([name, value]) => `${name} ${value}`)
        .join(", "),
    ]),
  );
}
