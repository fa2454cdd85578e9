/** The GPT training step in TensorFlow.js on its wasm backend: eager, Adam. */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { childOptions } from "../lib/child.mjs";
import { batch, causalMask, initialParameters } from "../lib/gpt.mjs";
import { measureTraining } from "../lib/training.mjs";

const { size, warmup, steps, budgetSeconds } = childOptions();
const { layers, d, heads, T, B, vocab, lr } = size;
const require = createRequire(import.meta.url);
const tf = require("@tensorflow/tfjs");
const { setWasmPaths } = require("@tensorflow/tfjs-backend-wasm");
setWasmPaths(join(dirname(require.resolve("@tensorflow/tfjs-backend-wasm/package.json")), "dist/"));
await tf.setBackend("wasm");
await tf.ready();

const variables = Object.entries(initialParameters(size)).map(([name, { shape, data }]) => [
  name,
  tf.variable(tf.tensor(data, shape), true, name),
]);
const p = Object.fromEntries(variables);
const mask = tf.tensor(causalMask(T), [1, 1, T, T]);
const product = (x, weight) => tf.matMul(x.reshape([-1, x.shape.at(-1)]), weight);

function norm(x, weight) {
  const centred = x.sub(x.mean(-1, true));
  return centred.mul(centred.square().mean(-1, true).add(1e-5).rsqrt()).mul(weight);
}
function gelu(x) {
  return x.mul(0.5).mul(
    x
      .add(x.pow(3).mul(0.044715))
      .mul(Math.sqrt(2 / Math.PI))
      .tanh()
      .add(1),
  );
}

/** One-hot products stand in for gather, whose gradient has no wasm kernel. */
function lossOf(tokens, targets) {
  let h = tf
    .matMul(tokens, p.wte)
    .reshape([B, T, d])
    .add(p.wpe)
    .reshape([B * T, d]);
  for (let l = 0; l < layers; l++) {
    const qkv = product(norm(h, p[`ln1.${l}`]), p[`qkv.${l}`])
      .reshape([B, T, 3, heads, d / heads])
      .transpose([2, 0, 3, 1, 4]);
    const [q, k, v] = tf.unstack(qkv, 0);
    const weights = tf.softmax(
      tf
        .matMul(q, k, false, true)
        .mul(1 / Math.sqrt(d / heads))
        .add(mask),
    );
    const mixed = tf
      .matMul(weights, v)
      .transpose([0, 2, 1, 3])
      .reshape([B * T, d]);
    h = h.add(product(mixed, p[`proj.${l}`]));
    h = h.add(product(gelu(product(norm(h, p[`ln2.${l}`]), p[`fc.${l}`])), p[`out.${l}`]));
  }
  return tf.losses.softmaxCrossEntropy(targets, product(norm(h, p.lnf), p.head));
}

const optimizer = tf.train.adam(lr, 0.9, 0.95, 1e-8);
async function step(i) {
  const { tokens, targets } = batch(i, size);
  const oneHot = (ids) => tf.oneHot(tf.tensor1d(ids, "int32"), vocab).toFloat();
  const loss = tf.tidy(() => {
    const [x, y] = [oneHot(tokens), oneHot(targets)];
    return optimizer.minimize(() => lossOf(x, y), true);
  });
  const [value] = await loss.data();
  loss.dispose();
  return value;
}
await measureTraining("TensorFlow.js wasm", size, 8 * d * d, step, { warmup, steps, budgetSeconds });
