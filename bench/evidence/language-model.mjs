/**
 * A small language model, trained by every rule after the same tuning: loss on a held-out novel against steps and against seconds. The runs of the
 * best settings follow each other alone on the machine, so that their seconds mean something.
 */
import { fixed } from "../lib/report.mjs";
import { writeFigure } from "./lib/figures.mjs";
import { rules } from "./lib/language-model-rules.mjs";
import { mean } from "./lib/statistics.mjs";
import { runTrials, Workers } from "./lib/trials.mjs";
import { printTuned, summary, tune } from "./lib/tuning.mjs";

export const title = "Language model of bytes (4 layers, width 256), nats a byte of a held-out novel";
export const sizes = { steps: 800, tuneSteps: 200, points: 8, finalists: 1, seeds: 3 };
export const names = Object.keys(rules);

const file = "language-model.mjs";
const evaluations = 20;

export async function run({ names, dtype, sizes: { steps, tuneSteps, seeds, ...budget }, ...options }) {
  const { device, results } = options;
  const trialOf = (rule, seed) => (hyper, length) => ({
    rule,
    hyper,
    dtype,
    device,
    seed,
    steps: length,
    evaluateEvery: length === steps ? Math.ceil(steps / evaluations) : length,
  });
  const workers = new Workers(file, { count: options.workers, device, results });
  const run = (trials) => workers.run(trials);
  const winners = await Promise.all(
    names.map((name) => {
      const lengths = [tuneSteps, steps];
      return tune(rules[name], { ...budget, lengths, trial: trialOf(name, 0), run });
    }),
  );
  workers.end();
  const judges = Array.from({ length: seeds }, (_, i) => i + 1); // 0 is that of the search
  const judged = await runTrials(
    file,
    names.flatMap((name, i) => judges.map((seed) => trialOf(name, seed)(winners[i].hyper, steps))),
    { device, results, workers: Math.min(1, options.workers) },
  );
  const rows = names.map((name, i) => {
    const runs = judged.slice(i * seeds, (i + 1) * seeds).filter(({ loss }) => loss !== undefined);
    const losses = runs.map(({ loss }) => loss ?? Number.NaN);
    return { ...runs[0], ...summary(rules[name], winners[i], losses), runs };
  });
  const msOf = ({ seconds }) => (1000 * seconds) / steps;
  printTuned(rows, `after ${tuneSteps} steps`, {
    "ms a step": ({ runs }) => (runs.length > 0 ? fixed(mean(runs.map(msOf)), 2) : undefined),
    "state, MB": ({ stateBytes }) => stateBytes && fixed(stateBytes / 1e6, 1),
  });
  draw(rows.filter(({ runs }) => runs.length > 0));
}

function draw(rows) {
  const figure = (name, unit, xOf) =>
    writeFigure(`language-model-${name}`, {
      title: `Language model of bytes: loss on a held-out novel by ${name}, mean of all seeds`,
      x: { label: unit },
      y: { label: "nats a byte", max: 2.2 },
      series: rows.map(({ label, runs }) => {
        const points = runs[0].curve.map((_, i) =>
          runs.map(({ curve }) => curve[i] ?? [Number.NaN, Number.NaN, Number.NaN]),
        );
        return {
          name: label,
          x: points.map((of) => mean(of.map(xOf))),
          y: points.map((of) => mean(of.map(([, , loss]) => loss))),
        };
      }),
    });
  figure("steps", "step", ([step]) => step);
  figure("seconds", "seconds of training", ([, seconds]) => seconds);
}
