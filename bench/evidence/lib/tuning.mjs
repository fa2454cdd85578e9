/**
 * Equal tuning for every rule:
 *
 * 1. `points` quasi-random settings, trained for the short length `tuneEpochs`;
 * 2. the best `finalists` of them for all `epochs`;
 * 3. the best of these with `seeds` other seeds: mean and standard error of the loss.
 */
import { fixed, printTable } from "../../lib/report.mjs";
import { mean, standardError } from "./means.mjs";
import { bordersOf, points } from "./search.mjs";

const lossOf = ({ loss }) => loss ?? Number.POSITIVE_INFINITY;

/** The `count` of `settings` with the lowest losses. */
function best(settings, results, count) {
  const order = settings.map((_, i) => i).sort((a, b) => lossOf(results[a]) - lossOf(results[b]));
  return order.slice(0, count).map((i) => settings[i]);
}

/** Tunes one rule. `trial({ rule, hyper, seed, length })` says what the study trains. */
export async function tune(name, rule, { epochs, tuneEpochs, points: budget, finalists, seeds, workers, trial }) {
  const run = (settings, length, seed) =>
    workers.run(settings.map((hyper, i) => trial({ rule: name, hyper, seed: seed(i), length })));
  const searched = points(rule.space, budget);
  const finals = best(searched, await run(searched, tuneEpochs, () => 0), finalists);
  const [hyper] = best(finals, await run(finals, epochs, () => 0), 1);
  const repeats = await run(
    Array.from({ length: seeds }, () => hyper),
    epochs,
    (i) => i + 1,
  );
  return { label: rule.label, hyper, repeats, borders: bordersOf(rule.space, hyper) };
}

export function printTuned(rows) {
  printTable(
    ["rule", "loss", "± s.e.", "seconds", "state, MB", "settings"],
    rows.map(({ label, hyper, repeats }) => {
      const losses = repeats.map(lossOf);
      return [
        label,
        fixed(mean(losses), 2),
        fixed(standardError(losses), 2),
        fixed(mean(repeats.map(({ seconds }) => seconds)), 1),
        fixed(repeats[0].stateBytes / 1e6, 1),
        Object.entries(hyper)
          .map(([setting, value]) => `${setting} ${value}`)
          .join(", "),
      ];
    }),
  );
  for (const { label, borders } of rows) {
    if (borders.length > 0)
      console.log(`${label}: the best of the settings lies at the border of its search: ${borders.join(", ")}`);
  }
}
