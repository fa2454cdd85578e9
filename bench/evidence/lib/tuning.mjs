/**
 * Equal tuning for every rule: `points` quasi-random settings are trained for a short time, the best `finalists` of them for the whole time. The best
 * of these is then judged by runs with other seeds.
 */
import { fixed, printTable } from "../../lib/report.mjs";
import { bordersOf, points } from "./search.mjs";
import { mean, standardError } from "./statistics.mjs";

/**
 * The best setting of a rule's space, or the one that it comes with, and the lowest loss of the short runs if all are known. `trial(hyper, length)` says what is
 * trained, `lengths` are the short and the whole one, and `run(trials)` gives the results. A rule may ask for more `finalists`. With one there is nothing to decide in the second round.
 */
export async function tune(
  { space, setting, finalists: least = 0 },
  { lengths: [short, whole], points: budget, finalists, trial, run },
) {
  if (setting !== undefined) return { hyper: setting };
  const ranked = async (settings, length) => {
    const found = await run(settings.map((hyper) => trial(hyper, length)));
    return settings
      .map((hyper, i) => ({
        hyper,
        loss: found[i].loss ?? Number.POSITIVE_INFINITY,
        known: found[i].loss !== undefined,
      }))
      .sort((a, b) => a.loss - b.loss);
  };
  const searched = await ranked(points(space, budget), short);
  const finals = searched.slice(0, Math.max(finalists, least)).map(({ hyper }) => hyper);
  const [{ hyper }] = finals.length === 1 ? searched : await ranked(finals, whole);
  return { hyper, shortLoss: searched.every(({ known }) => known) ? searched[0].loss : undefined };
}

/** A line of the table, from the losses of a setting with several seeds. */
export function summary({ label, space, setting }, { hyper, shortLoss }, losses) {
  const borders = setting === undefined ? bordersOf(space, hyper) : [];
  return { label, hyper, shortLoss, losses, loss: mean(losses), error: standardError(losses), borders };
}

const settingsOf = ({ hyper }) =>
  Object.entries(hyper)
    .map(([setting, value]) => `${setting} ${value}`)
    .join(", ");

/** `short`: what the short runs were, in words; `more`: further columns, `{ header: row => cell }`. */
export function printTuned(rows, short, more = {}) {
  const isKnown = ({ losses, shortLoss }) => losses.length > 0 || shortLoss !== undefined;
  const known = rows.filter(isKnown);
  printTable(
    ["rule", "loss", "± s.e.", `best ${short}`, ...Object.keys(more), "settings"],
    known.map((row) => [
      row.label,
      row.losses.length > 0 ? fixed(row.loss, 3) : undefined,
      fixed(row.error, 3),
      fixed(row.shortLoss, 3),
      ...Object.values(more).map((cell) => cell(row)),
      settingsOf(row),
    ]),
  );
  for (const { label, borders } of known)
    for (const border of borders) console.log(`${label}: the best is at the border of what was searched: ${border}.`);
  const unknown = rows.filter((row) => !isKnown(row)).map(({ label }) => label);
  if (unknown.length > 0) console.log(`not run: ${unknown.join("; ")}`);
}
