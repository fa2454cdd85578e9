/**
 * The eigenvalues of the Kronecker factors of every hidden matrix while a language model trains with AdamW, or of independent normal
 * numbers in the place of the gradients.
 */
import { Transformer } from "@llmeff/models";
import { AdamW, cosine } from "@llmeff/optim";
import { randomNormal, scope } from "@llmeff/tensor";
import { KroneckerFactors } from "../lib/kronecker-factors.mjs";
import { trainSmallGpt } from "../lib/small-gpt.mjs";
import { spectrumFacts, spectrumPoints } from "../lib/spectrum.mjs";
import { serve } from "../lib/trials.mjs";

const hidden = /^model\.layers\.\d+\..*_proj\.weight$/;

async function run({ gradients, hyper, beta2, checkpoints, ...trial }) {
  const factors = new KroneckerFactors(beta2);
  const rows = [];
  const spectra = [];
  const take = async (step, grads) => {
    factors.add(grads);
    if (!checkpoints.includes(step)) return;
    for await (const { name, side, values } of factors.spectra()) {
      rows.push({ step, name, side, ...spectrumFacts(values) });
      if (step === checkpoints.at(-1)) spectra.push({ name, side, points: spectrumPoints(values) });
    }
  };
  const result = gradients === "normal" ? await drawGradients(trial, take) : await train(trial, hyper, take);
  factors.dispose();
  return { ...result, rows, spectra };
}

function train(trial, { learningRate, ...hyper }, take) {
  const schedule = cosine(learningRate, trial.steps, { warmupSteps: Math.round(trial.steps / 20) });
  const matrices = (grads) => Object.fromEntries(Object.entries(grads).filter(([name]) => hidden.test(name)));
  return trainSmallGpt(
    trial,
    (params) => new AdamW(params, { ...hyper, learningRate: schedule }),
    (step, grads) => take(step, matrices(grads)),
  );
}

/** One matrix of each shape: there is nothing else to tell them apart. */
async function drawGradients({ config, steps, seed, seqLen }, take) {
  const start = performance.now();
  const params = new Transformer({ vocabSize: 1, maxSeqLen: seqLen, ...config }).init(seed);
  const shapes = new Map();
  for (const [name, { shape }] of Object.entries(params))
    if (hidden.test(name)) shapes.set(shape.join(), [name, shape]);
  for (const param of Object.values(params)) param.dispose();
  for (let step = 1; step <= steps; step++) {
    const drawn = scope(() =>
      Object.fromEntries(
        [...shapes.values()].map(([name, shape], i) => [name, randomNormal({ seed, stream: step * 8 + i }, shape)]),
      ),
    );
    await take(step, drawn);
    for (const x of Object.values(drawn)) x.dispose();
  }
  return { loss: null, seconds: Number(((performance.now() - start) / 1000).toFixed(2)) };
}

serve(run);
