/**
 * Does attention to pairs of tokens learn from fewer tokens than attention to single ones? On generated tasks, three-way ones and their two-way controls: tokens
 * to 95 % accuracy. On text: the loss at three sizes, and the exponent of its fall. All arms of a part have as many parameters, tokens and
 * learning rates to choose from.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { Workers } from "./lib/trials.mjs";
import { novels } from "./lib/two-simplicial-data.mjs";
import { isTried, tell } from "./lib/two-simplicial-report.mjs";
import { partNames, partsOf, scales } from "./lib/two-simplicial-settings.mjs";

export const title = "2-simplicial against dot-product attention";
export const sizes = {};
export const names = partNames;
export const options = { size: "cpu", corpus: novels, out: undefined };

/** The seed that learning rates are chosen with; others judge. */
const tuningSeed = 101;

/** Best first: reached the target with fewer tokens, else more accurate; a lower loss. */
const better = {
  accuracy: (a, b) => (a.tokensToTarget ?? Infinity) - (b.tokensToTarget ?? Infinity) || b.value - a.value,
  loss: (a, b) => a.value - b.value,
};

/** The rate of the best trial, `undefined` if all diverged or none is known. */
export function chosenRate(metric, rates, results) {
  const ended = results.map((result, i) => ({ ...result, rate: rates[i] })).filter(({ value }) => value != null);
  return ended.toSorted((a, b) => better[metric](a, b) || 0)[0]?.rate;
}

async function armOf(part, arm, { seeds, run, ...setting }) {
  const { name, data, metric, rates, training } = part;
  const model = part.models[arm];
  const trial = (rate, seed, steps) => {
    return { part: name, arm, model, data, metric, rate, training: { ...training, steps }, seed, ...setting };
  };
  const tuned = await run(rates.map((rate) => trial(rate, tuningSeed, part.tuneSteps)));
  const rate = chosenRate(metric, rates, tuned);
  const runs =
    rate === undefined ? seeds.map(() => ({})) : await run(seeds.map((seed) => trial(rate, seed, training.steps)));
  return { arm, rate, tuned, runs };
}

/** Runs what is missing of the parts. `run(trials)` gives the trials' results, an empty one for a trial that isn't to be run. */
export async function study({ parts, ...setting }) {
  return Promise.all(
    parts.map(async (part) => ({
      part,
      arms: await Promise.all(
        Object.keys(part.models).map(async (arm) => ({
          parameters: part.parameters[arm],
          ...(await armOf(part, arm, setting)),
        })),
      ),
    })),
  );
}

/** Large models first, then the tasks in their order. */
const costOf = ({ metric, model: { dModel } }) => (metric === "loss" ? dModel : 0);

/** How trials name a corpus: by the file's name, and by what is in it unless it is the project's own. */
function nameOf(corpus) {
  if (corpus === novels) return novels;
  const digest = createHash("sha256").update(readFileSync(corpus)).digest("hex");
  return `${basename(corpus)} ${digest.slice(0, 12)}`;
}

export async function run({ names, dtype, device, workers: count, results, options: { size, corpus, out } }) {
  if (!Object.hasOwn(scales, size))
    throw new Error(`[evidence] --size must be one of ${Object.keys(scales).join(", ")}; received ${size}.`);
  if (corpus !== novels) process.env.LLMEFF_CORPUS = corpus;
  const { seeds } = scales[size];
  const parts = partsOf(scales[size], nameOf(corpus)).filter(({ name }) => names.includes(name));
  const workers = new Workers("two-simplicial.mjs", { count, device, results, costOf });
  const found = await study({ parts, seeds, dtype, device, run: (trials) => workers.run(trials) });
  workers.end();
  if (!found.some(isTried)) return console.log("no run is known yet");
  const folder = out ?? join("runs", `two-simplicial-${size}`);
  mkdirSync(folder, { recursive: true });
  const width = process.stdout.columns ?? 160;
  await tell(join(folder, "report.html"), found, { seeds, settings: parts, machines: results.machines, width });
}
