/**
 * The autoencoder of SONew's experiments (arXiv:2311.10085): 784-1000-500-250-30-250-500-1000-784 on MNIST's 60,000 training images, tanh after
 * every layer but the code and the output, Glorot-uniform weights, zero biases; sigmoid cross-entropy, the mean over a batch of 1000 of the
 * sum over the 784 pixels; every epoch reshuffled, its learning rate constant. The result is the loss over the whole training set.
 *
 * In bfloat16 the images, parameters and activations are; loss, statistics and the optimizers' master weights stay float32.
 */

import { fileURLToPath } from "node:url";
import { loadIdx, Random } from "@llmeff/data";
import { LinearAlgebraError } from "@llmeff/native";
import {
  astype,
  indexSelect,
  linear,
  randomUniform,
  scope,
  sigmoidCrossEntropy,
  stack,
  tanh,
  tensor,
  zeros,
} from "@llmeff/tensor";
import { captureForward, captureTraining } from "../lib/captured.mjs";
import { epochRate } from "../lib/epoch-rate.mjs";
import { mean } from "../lib/means.mjs";
import { rules } from "../lib/rules.mjs";
import { serve } from "../lib/trials.mjs";

const widths = [784, 1000, 500, 250, 30, 250, 500, 1000, 784];
const code = widths.indexOf(30) - 1;
const batch = 1000;

const { data: pixels, shape } = await loadIdx(
  fileURLToPath(new URL("../../../datasets/mnist/train-images-idx3-ubyte.gz", import.meta.url)),
);
const count = shape[0];
const images = scope(() => astype(tensor(pixels, { shape: [count, 784] }), "float32").div(255));
const inOrder = Int32Array.from({ length: count }, (_, i) => i);

function initial(seed, dtype) {
  const params = {};
  for (const [i, outputs] of widths.slice(1).entries()) {
    const inputs = widths[i];
    const limit = Math.sqrt(6 / (inputs + outputs));
    params[`layer${i}.weight`] = scope(() => {
      const uniform = randomUniform({ seed, stream: i }, [outputs, inputs]);
      return astype(uniform.mul(2 * limit).sub(limit), dtype);
    });
    params[`layer${i}.bias`] = zeros([outputs], { dtype });
  }
  return params;
}

function lossOf(params, x) {
  let hidden = x;
  for (let i = 0; i < widths.length - 1; i++) {
    hidden = linear(hidden, params[`layer${i}.weight`], params[`layer${i}.bias`]);
    if (i !== code && i !== widths.length - 2) hidden = tanh(hidden);
  }
  return sigmoidCrossEntropy(hidden, x, { reduction: "sum" }).mul(1 / x.shape[0]);
}

/** The mean of what `step` gives for the batches of the images in an order; NaN when a decomposition found no end. */
async function meanOverBatches(step, order) {
  const losses = [];
  for (let at = 0; at < count; at += batch) losses.push(step({ rows: order.subarray(at, at + batch) }));
  const all = scope(() => stack(losses));
  for (const loss of losses) loss.dispose();
  try {
    // Waits for the epoch, too: the queue doesn't grow without end.
    return mean(await all.data());
  } catch (error) {
    if (error instanceof LinearAlgebraError) return Number.NaN;
    throw error;
  } finally {
    all.dispose();
  }
}

/** `evaluate`: the epochs after which the loss over the training set is measured, beside the last. `curve`: keeps the mean loss of each epoch. */
async function train({ rule, hyper, dtype, seed, epochs, evaluate = [], curve = false }) {
  const start = performance.now();
  const data = dtype === "float32" ? images : astype(images, dtype);
  const params = initial(seed, dtype);
  const schedule = (peak) => (step) => epochRate(peak, Math.floor(step / (count / batch)), epochs);
  const optimizer = rules[rule].make(params, hyper, schedule);
  const loss = (p, { rows }) => lossOf(p, indexSelect(data, 0, rows));
  const inputs = { rows: { shape: [batch], dtype: "int32" } };
  const step = captureTraining(loss, params, optimizer, inputs);
  const forward = captureForward(loss, params, inputs);
  const means = [];
  const losses = [];
  let diverged = false;
  for (let epoch = 1; epoch <= epochs && !diverged; epoch++) {
    const order = Int32Array.from(new Random(seed, "shuffle", epoch).permutation(count));
    means.push(await meanOverBatches(step, order));
    diverged = !(means.at(-1) < 1e4);
    if (!diverged && (epoch === epochs || evaluate.includes(epoch))) {
      losses.push([epoch, await meanOverBatches(forward, inOrder)]);
    }
  }
  const stateBytes = optimizer.stateBytes();
  const { captured } = step;
  for (const used of [step, forward, optimizer, ...Object.values(params)]) used.dispose();
  if (data !== images) data.dispose();
  const seconds = Number(((performance.now() - start) / 1000).toFixed(2));
  const rounded = (x) => Number(x.toFixed(4));
  // JSON has no infinity: null is the loss of a run that diverged.
  const final = diverged || !Number.isFinite(losses.at(-1)[1]) ? null : rounded(losses.at(-1)[1]);
  return {
    loss: final,
    losses: losses.map(([epoch, loss]) => [epoch, rounded(loss)]),
    ...(curve ? { means: means.map(rounded) } : {}),
    seconds,
    stateBytes,
    captured,
  };
}

serve(train);
