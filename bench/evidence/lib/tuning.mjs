/**
 * Equal tuning for every rule: `points` quasi-random settings are trained for a short time, the best `finalists` of them for the whole time. The best
 * of these is then judged by runs with other seeds.
 */
import { fixed, printTable } from "../../lib/report.mjs";
import { bordersOf, points } from "./search.mjs";
import { mean, standardError } from "./statistics.mjs";

/**
 * The best setting of a rule's space, or the one that it comes with. `trial(hyper, length)` says what is trained, `lengths` are the short and the whole one, and `run(trials)`
 * gives the results. With one finalist there is nothing to decide in the second round.
 */
export async function tune({ space, setting }, { lengths: [short, whole], points: budget, finalists, trial, run }) {
  if (setting !== undefined) return setting;
  const best = async (settings, length, count) => {
    const losses = (await run(settings.map((hyper) => trial(hyper, length)))).map(({ loss }) => loss ?? Infinity);
    const order = settings.map((_, i) => i).sort((a, b) => losses[a] - losses[b]);
    return order.slice(0, count).map((i) => settings[i]);
  };
  const finals = await best(points(space, budget), short, finalists);
  const [winner] = finals.length === 1 ? finals : await best(finals, whole, 1);
  return winner;
}

/** A line of the table, from the losses of a setting with several seeds. */
export function summary({ label, space, setting }, hyper, losses) {
  const borders = setting === undefined ? bordersOf(space, hyper) : [];
  return { label, hyper, loss: mean(losses), error: standardError(losses), borders };
}

/** `more`: further columns, `{ header: row => cell }`. */
export function printTuned(rows, more = {}) {
  printTable(
    ["rule", "loss", "± s.e.", ...Object.keys(more), "state, MB", "settings"],
    rows.map((row) => [
      row.label,
      fixed(row.loss, 3),
      fixed(row.error, 3),
      ...Object.values(more).map((cell) => cell(row)),
      fixed(row.stateBytes / 1e6, 1),
      Object.entries(row.hyper)
        .map(([setting, value]) => `${setting} ${value}`)
        .join(", "),
    ]),
  );
  for (const { label, borders } of rows)
    for (const border of borders) console.log(`${label}: the best is at the border of what was searched: ${border}.`);
}
