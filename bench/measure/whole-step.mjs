/** Training steps of one model with AdamW and with SONew, turn by turn, so that both see the machine in the same moods. */
import { Transformer } from "@llmeff/models";
import { AdamW, Sonew } from "@llmeff/optim";
import { scope, sync, tensor, valueAndGrad } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { batch, modelConfig } from "../lib/gpt.mjs";
import { median } from "../lib/timing.mjs";

const { size, dtype, rounds, stepsPerRound } = childOptions();
const { T, B, lr } = size;
const model = new Transformer(modelConfig(size));
const settings = { learningRate: lr, beta1: 0.9, beta2: 0.95 };
const { tokens, targets } = batch(0, size);
const data = { tokens: tensor(tokens, { shape: [B, T] }), targets: tensor(targets, { shape: [B, T] }) };

function run(Optimizer, options) {
  const params = model.init(1, { dtype });
  const optimizer = new Optimizer(params, { ...settings, ...options });
  const step = () =>
    scope(() => {
      const { value, grads } = valueAndGrad((p) => model.loss(p, data), params);
      optimizer.step(grads);
      return value;
    });
  return { optimizer, step, seconds: [], losses: [] };
}

const runs = { adamw: run(AdamW, { weightDecay: 0.01 }), sonew: run(Sonew, { band: 1, graft: "adam" }) };

/** Several steps together: their launches hide behind each other, as in training. */
async function round({ step, losses }) {
  await sync();
  const start = performance.now();
  let last;
  for (let i = 0; i < stepsPerRound; i++) {
    last?.dispose();
    last = step();
  }
  losses.push(await last.item());
  const seconds = (performance.now() - start) / 1e3 / stepsPerRound;
  last.dispose();
  return seconds;
}

for (let i = 0; i <= rounds; i++) {
  // The first of two profits or suffers from what was before: each is first half of the time. Round 0 only warms up.
  const order = i % 2 === 0 ? [runs.adamw, runs.sonew] : [runs.sonew, runs.adamw];
  for (const one of order) {
    const seconds = await round(one);
    if (i > 0) one.seconds.push(seconds);
  }
}
for (const [name, { losses }] of Object.entries(runs)) {
  expect(losses.at(-1) < losses[0], `${name}: the loss went from ${losses[0]} to ${losses.at(-1)}`);
}
const ms = ({ seconds }) => 1e3 * median(seconds);
emit({
  parameters: model.parameterCount,
  adamwMs: ms(runs.adamw),
  sonewMs: ms(runs.sonew),
  medianRatio: ms(runs.sonew) / ms(runs.adamw),
  // What remains when a round of one is held against its neighbour: drifts of the machine cancel.
  pairedRatio: median(runs.sonew.seconds.map((x, i) => x / runs.adamw.seconds[i])),
  bestRatio: Math.min(...runs.sonew.seconds) / Math.min(...runs.adamw.seconds),
});
