/**
 * The autoencoder of SONew's experiments (arXiv:2311.10085): 784-1000-500-250-30-250-500-1000-784 on MNIST's 60,000 training images, tanh after
 * every layer but the code and the output, Glorot-uniform weights, zero biases; sigmoid cross-entropy, the mean over a batch of 1000 of the
 * sum over the 784 pixels; every epoch reshuffled, its learning rate constant. The result is the loss over the whole training set.
 */

import { fileURLToPath } from "node:url";
import { loadIdx, Random } from "@llmeff/data";
import {
  astype,
  indexSelect,
  linear,
  scope,
  sigmoidCrossEntropy,
  slice,
  tanh,
  tensor,
  valueAndGrad,
  zeros,
} from "@llmeff/tensor";
import { epochRate } from "../lib/epoch-rate.mjs";
import { rules } from "../lib/rules.mjs";
import { serve } from "../lib/trials.mjs";

const widths = [784, 1000, 500, 250, 30, 250, 500, 1000, 784];
const code = widths.indexOf(30) - 1;
const batch = 1000;

const { data: pixels, shape } = await loadIdx(
  fileURLToPath(new URL("../../../datasets/mnist/train-images-idx3-ubyte.gz", import.meta.url)),
);
const count = shape[0];
const images = tensor(
  Float32Array.from(pixels, (x) => x / 255),
  { shape: [count, 784] },
);

function initial(seed, dtype) {
  const params = {};
  for (const [i, outputs] of widths.slice(1).entries()) {
    const inputs = widths[i];
    const random = new Random(seed, "glorot", i);
    const limit = Math.sqrt(6 / (inputs + outputs));
    const weight = Float32Array.from({ length: inputs * outputs }, () => limit * (2 * random.uniform() - 1));
    params[`layer${i}.weight`] = tensor(weight, { shape: [outputs, inputs], dtype });
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

async function trainLoss(params, data) {
  const total = scope(() => {
    let sum;
    for (let at = 0; at < count; at += batch) {
      const loss = lossOf(params, slice(data, 0, at, at + batch));
      sum = sum === undefined ? loss : sum.add(loss);
    }
    return sum;
  });
  const loss = (await total.item()) / (count / batch);
  total.dispose();
  return loss;
}

async function train({ rule, hyper, dtype, seed, epochs, evaluateEvery }) {
  const start = performance.now();
  const data = dtype === "float32" ? images : astype(images, dtype);
  const params = initial(seed, dtype);
  const schedule = (peak) => (step) => epochRate(peak, Math.floor(step / (count / batch)), epochs);
  const optimizer = rules[rule].make(params, hyper, schedule);
  const losses = [];
  let diverged = false;
  for (let epoch = 0; epoch < epochs && !diverged; epoch++) {
    const order = tensor(Int32Array.from(new Random(seed, "shuffle", epoch).permutation(count)));
    let last;
    for (let at = 0; at < count; at += batch) {
      last?.dispose();
      last = scope(() => {
        const x = indexSelect(data, 0, slice(order, 0, at, at + batch));
        const { value, grads } = valueAndGrad((p) => lossOf(p, x), params);
        optimizer.step(grads);
        return value;
      });
    }
    // Waits for the epoch, too: the queue doesn't grow without end.
    diverged = !((await last.item()) < 1e4);
    last.dispose();
    order.dispose();
    if (!diverged && ((epoch + 1) % evaluateEvery === 0 || epoch + 1 === epochs)) {
      losses.push([epoch + 1, Number((await trainLoss(params, data)).toFixed(4))]);
    }
  }
  const stateBytes = optimizer.stateBytes();
  optimizer.dispose();
  for (const param of Object.values(params)) param.dispose();
  if (data !== images) data.dispose();
  const seconds = Number(((performance.now() - start) / 1000).toFixed(2));
  // JSON has no infinity: null is the loss of a run that diverged.
  const loss = diverged || !Number.isFinite(losses.at(-1)[1]) ? null : losses.at(-1)[1];
  return { loss, losses, seconds, stateBytes };
}

serve(train);
