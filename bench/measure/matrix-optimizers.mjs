/**
 * Steps of the optimizers of matrices on the shapes of a language model: milliseconds a step from the first call of a run of steps until all are
 * done, on the device of LLMEFF_DEVICE. The updates of a first step are checked by what they must be.
 */
import { AdamW, Muon, newtonSchulz, PsgdKron, Shampoo, Sketchy, Soap } from "@llmeff/optim";
import { memory, randomNormal, scope, sync } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { median } from "../lib/timing.mjs";

const { layers, d, ffn, words, methods, repeats = 5 } = childOptions();

/** Weights by name, as the Transformers of @llmeff/models have them. */
function shapesOf() {
  const shapes = { embedding: [words, d] };
  for (let i = 0; i < layers; i++) {
    for (const name of ["q", "k", "v", "o"]) shapes[`${i}.${name}`] = [d, d];
    for (const name of ["gate", "up"]) shapes[`${i}.${name}`] = [ffn, d];
    shapes[`${i}.down`] = [d, ffn];
  }
  return shapes;
}

const shapes = shapesOf();
const isHidden = (name) => name !== "embedding";
const random = (seed) =>
  Object.fromEntries(
    Object.entries(shapes).map(([name, shape], stream) => [
      name,
      scope(() => randomNormal({ seed, stream }, shape).mul(0.02)),
    ]),
  );
const pick = (record, wanted) => Object.fromEntries(Object.entries(record).filter(([name]) => wanted(name)));

/** Optimizers whose steps together make one step of all weights. `every`: steps that its intervals divide. */
const make = {
  AdamW: { every: 1, of: (p) => [new AdamW(p, { learningRate: 1e-4 })] },
  Muon: { every: 1, of: (p) => [new Muon(p, { groups: [{ params: ["embedding"], method: "adamw" }] })] },
  "Muon, AdamW beside it": {
    every: 1,
    of: (p) => [new Muon(pick(p, isHidden)), new AdamW(pick(p, (name) => !isHidden(name)))],
  },
  "Shampoo, roots every 20": { every: 20, of: (p) => hidden(p, Shampoo, { rootEvery: 20 }) },
  "Shampoo, coupled Newton every 20": {
    every: 20,
    of: (p) => hidden(p, Shampoo, { rootEvery: 20, root: "coupledNewton" }),
  },
  "Sketchy, rank 64 every 10": { every: 10, of: (p) => hidden(p, Sketchy, { rank: 64, updateEvery: 10 }) },
  "SOAP every 10": { every: 10, of: (p) => hidden(p, Soap, { preconditionFrequency: 10 }) },
  "PSGD-Kron": { every: 1, of: (p) => hidden(p, PsgdKron, {}) },
};

/** A rule of matrices for the layers, AdamW for the embedding. */
function hidden(params, Rule, options) {
  return [
    new Rule(pick(params, isHidden), { learningRate: 1e-4, ...options }),
    new AdamW(pick(params, (name) => !isHidden(name))),
  ];
}

async function checkNewtonSchulz() {
  const out = scope(() => newtonSchulz(randomNormal({ seed: 1 }, [64, 96])));
  const gram = scope(() => out.matmul(out.T));
  const trace = (await gram.data()).reduce((sum, x, i) => sum + (i % 65 === 0 ? x : 0), 0);
  expect(trace > 64 * 0.36 && trace < 64 * 1.69, `squares of singular values add up to ${trace} of 64`);
}

async function timeSteps(name) {
  const { every, of } = make[name];
  const params = random(1);
  const grads = random(2);
  const optimizers = of(params);
  const steps = (count) => {
    for (let i = 0; i < count; i++) {
      for (const optimizer of optimizers) {
        optimizer.step(pick(grads, (key) => optimizer.paramGroups.some((group) => group.params.includes(key))));
      }
    }
    return sync();
  };
  // Interval-long runs, so that each has its share of decompositions; the first makes them once more.
  const first = performance.now();
  await steps(1);
  const firstMs = performance.now() - first;
  await steps(every === 1 ? 2 : every - 1);
  const length = Math.max(every, 5);
  const times = [];
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    await steps(length);
    times.push((performance.now() - start) / length);
  }
  const queued = performance.now();
  const done = steps(length);
  const queuedMs = (performance.now() - queued) / length;
  await done;
  emit({
    method: name,
    ms: median(times),
    bestMs: Math.min(...times),
    firstMs,
    queuedMs,
    stateMiB: optimizers.reduce((sum, optimizer) => sum + optimizer.stateBytes(), 0) / 2 ** 20,
    peakMiB: memory().peakBytes / 2 ** 20,
    parameters: Object.values(shapes).reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0),
  });
  for (const optimizer of optimizers) optimizer.dispose();
  for (const x of [...Object.values(params), ...Object.values(grads)]) x.dispose();
}

await checkNewtonSchulz();
for (const name of methods ?? Object.keys(make)) await timeSteps(name);
