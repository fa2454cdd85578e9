/**
 * A trial of online logistic regression: `settings` tries many settings of an algorithm at once, `hyper` one; with neither the best fixed
 * weights in hindsight play the stream.
 */
import { OnlineConvex, onlineConvex } from "@llmeff/optim";
import { bestInHindsight } from "../lib/logistic-optimum.mjs";
import { learnOnline } from "../lib/online-learning.mjs";
import { streams } from "../lib/streams.mjs";
import { serve } from "../lib/trials.mjs";

/**
 * Settings that one transform can serve. A step of every algorithm is `lr` times that of rate 1, for those of Newton's kind with `delta · lr` in the
 * place of `delta`: their sketch holds gradients over √lr.
 */
function groupsOf(algorithm, sketchSize, settings) {
  const groups = new Map();
  for (const [index, { learningRate, delta }] of settings.entries()) {
    const isNewton = algorithm === "fdSon" || algorithm === "rfdSon";
    const offset = Number((isNewton ? delta * learningRate : delta).toPrecision(6));
    const group = groups.get(offset) ?? { offset, rates: [], indices: [] };
    group.rates.push(learningRate);
    group.indices.push(index);
    groups.set(offset, group);
  }
  return [...groups.values()].map(({ offset, ...group }) => ({
    ...group,
    transform: onlineConvex(1, { algorithm, delta: offset, sketchSize }),
  }));
}

async function tune({ algorithm, sketchSize, settings, ...trial }) {
  const stream = await streams[trial.stream].make(trial);
  const groups = groupsOf(algorithm, sketchSize, settings);
  const results = await learnOnline(groups, stream, 1);
  const losses = new Array(settings.length);
  for (const [g, { indices }] of groups.entries()) {
    for (const [i, index] of indices.entries()) losses[index] = rounded(results[g][i].losses[0] / trial.count);
  }
  const known = losses.map((loss) => loss ?? Number.POSITIVE_INFINITY);
  return { loss: Math.min(...known), losses };
}

/** JSON has no infinity: null is the loss of what diverged. */
const rounded = (x) => (Number.isFinite(x) ? Number(x.toPrecision(6)) : null);

async function report({ hyper, points, ...trial }) {
  const stream = await streams[trial.stream].make(trial);
  const [[{ losses, mistakes }]] = await learnOnline(
    [{ transform: onlineConvex(hyper.learningRate, without(hyper, "learningRate")), rates: [1] }],
    stream,
    points,
  );
  const optimizer = new OnlineConvex({ w: new Float32Array(stream.size) }, hyper);
  return {
    loss: rounded(losses.at(-1) / trial.count),
    losses: losses.map(rounded),
    mistakes,
    stateBytes: optimizer.stateBytes(),
  };
}

const without = (object, name) => Object.fromEntries(Object.entries(object).filter(([key]) => key !== name));

async function hindsight({ points, ...trial }) {
  const { losses, mistakes } = await bestInHindsight(await streams[trial.stream].make(trial), points);
  return { loss: rounded(losses.at(-1) / trial.count), losses: losses.map(rounded), mistakes };
}

serve(async (trial) => {
  const start = performance.now();
  const result = await (trial.settings ? tune(trial) : trial.hyper ? report(trial) : hindsight(trial));
  return { ...result, seconds: Number(((performance.now() - start) / 1000).toFixed(2)) };
});
