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
  slice,
  stack,
  tanh,
  tensor,
  zeros,
} from "@llmeff/tensor";
import { captureForward, captureTraining } from "../lib/captured.mjs";
import { epochRate } from "../lib/epoch-rate.mjs";
import { rules } from "../lib/rules.mjs";
import { mean } from "../lib/statistics.mjs";
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

/** The parameters of a seed's network. */
function initial(seed, dtype) {
  const params = {};
  for (const [i, outputs] of widths.slice(1).entries()) {
    const inputs = widths[i];
    const limit = Math.sqrt(6 / (inputs + outputs));
    params[`${seed}.layer${i}.weight`] = scope(() => {
      const uniform = randomUniform({ seed, stream: i }, [outputs, inputs]);
      return astype(uniform.mul(2 * limit).sub(limit), dtype);
    });
    params[`${seed}.layer${i}.bias`] = zeros([outputs], { dtype });
  }
  return params;
}

function lossOf(params, seed, x) {
  let hidden = x;
  for (let i = 0; i < widths.length - 1; i++) {
    hidden = linear(hidden, params[`${seed}.layer${i}.weight`], params[`${seed}.layer${i}.bias`]);
    if (i !== code && i !== widths.length - 2) hidden = tanh(hidden);
  }
  return sigmoidCrossEntropy(hidden, x, { reduction: "sum" }).mul(1 / x.shape[0]);
}

/** The mean of what `step` gives for the batches; each order is that of one seed. NaN when a decomposition found no end. */
async function meanOverBatches(step, orders) {
  const losses = [];
  const rows = new Int32Array(orders.length * batch);
  for (let at = 0; at < count; at += batch) {
    for (const [i, order] of orders.entries()) rows.set(order.subarray(at, at + batch), i * batch);
    losses.push(step({ rows }));
  }
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

const rounded = (x) => Number(x.toFixed(4));

/**
 * Trains a network for each of `seeds`, all in the same steps, so that an optimizer of matrices makes batches of them. `evaluate`: the epochs after which
 * the losses over the training set are measured, beside the last. `curve`: keeps the mean loss of each epoch. `timed`: tells the milliseconds of a
 * step of the last epoch.
 */
async function train({ rule, hyper, dtype, seeds, epochs, evaluate = [], curve = false, timed = false }) {
  const start = performance.now();
  const data = dtype === "float32" ? images : astype(images, dtype);
  const params = Object.assign({}, ...seeds.map((seed) => initial(seed, dtype)));
  const schedule = (peak) => (step) => epochRate(peak, Math.floor(step / (count / batch)), epochs);
  const optimizer = rules[rule].make(params, hyper, schedule);
  const batchOf = (rows, i) => indexSelect(data, 0, slice(rows, 0, i * batch, (i + 1) * batch));
  // Their gradients are those of each loss alone.
  const sum = (p, { rows }) => seeds.map((seed, i) => lossOf(p, seed, batchOf(rows, i))).reduce((a, b) => a.add(b));
  const inputs = (networks) => ({ rows: { shape: [networks * batch], dtype: "int32" } });
  const step = captureTraining(sum, params, optimizer, inputs(seeds.length));
  const forwards = seeds.map((seed) =>
    captureForward((p, { rows }) => lossOf(p, seed, batchOf(rows, 0)), params, inputs(1)),
  );
  const ordersOf = (epoch) =>
    seeds.map((seed) => Int32Array.from(new Random(seed, "shuffle", epoch).permutation(count)));
  const means = [];
  const losses = [];
  let stepMs;
  let diverged = false;
  let orders = ordersOf(1);
  for (let epoch = 1; epoch <= epochs && !diverged; epoch++) {
    const begun = performance.now();
    const pending = meanOverBatches(step, orders);
    orders = ordersOf(epoch + 1);
    means.push((await pending) / seeds.length);
    stepMs = (performance.now() - begun) / (count / batch);
    diverged = !(means.at(-1) < 1e4);
    if (diverged || !(epoch === epochs || evaluate.includes(epoch))) continue;
    const each = [];
    for (const forward of forwards) each.push(await meanOverBatches(forward, [inOrder]));
    losses.push([epoch, each]);
  }
  const stateBytes = optimizer.stateBytes() / seeds.length;
  const { captured } = step;
  for (const used of [step, ...forwards, optimizer, ...Object.values(params)]) used.dispose();
  if (data !== images) data.dispose();
  const last = diverged ? [Number.NaN] : losses.at(-1)[1];
  return {
    // JSON has no infinity: null is the loss of a run that diverged.
    loss: Number.isFinite(mean(last)) ? rounded(mean(last)) : null,
    losses: losses.map(([epoch, each]) => [epoch, each.map(rounded)]),
    ...(curve ? { means: means.map(rounded) } : {}),
    ...(timed ? { stepMs: rounded(stepMs) } : {}),
    seconds: Number(((performance.now() - start) / 1000).toFixed(2)),
    stateBytes,
    captured,
  };
}

serve(train);
