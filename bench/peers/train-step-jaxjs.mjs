/**
 * The GPT training step in jax-js on its wasm device: a jitted loss with gradients, and Adam as a second jitted function. Its arrays are
 * counted: x.ref keeps x alive, a use without .ref consumes it.
 */
import { blockUntilReady, defaultDevice, init, jit, nn, numpy as np, tree, valueAndGrad } from "@jax-js/jax";
import { childOptions } from "../lib/child.mjs";
import { batch, causalMask, initialParameters } from "../lib/gpt.mjs";
import { measureTraining } from "../lib/training.mjs";

const { size, warmup, steps, budgetSeconds } = childOptions();
const { layers, d, heads, T, B, vocab, lr } = size;
await init("wasm"); // plain init() needs the `navigator` global, absent in Node 20
defaultDevice("wasm");

const array = (data, shape) => np.array(data).reshape(shape);
const params = Object.fromEntries(
  Object.entries(initialParameters(size)).map(([name, { data, shape }]) => [name, array(data, shape)]),
);
const zeros = () => tree.map((x) => np.zeros(x.shape), params);
const [m, v] = [zeros(), zeros()];
const mask = array(causalMask(T), [1, 1, T, T]);
const norm = (x, weight) => nn.standardize(x, -1).mul(weight);

function lossOf(p, tokens, targets, bias) {
  let h = np
    .matmul(tokens, p.wte)
    .reshape([B, T, d])
    .add(p.wpe)
    .reshape([B * T, d]);
  for (let l = 0; l < layers; l++) {
    const qkv = np
      .matmul(norm(h.ref, p[`ln1.${l}`]), p[`qkv.${l}`])
      .reshape([B, T, 3, heads, d / heads])
      .transpose([2, 0, 3, 1, 4]);
    const [q, k, value] = np.split(qkv, 3, 0).map((x) => x.reshape([B, heads, T, d / heads]));
    const scores = np
      .matmul(q, k.transpose([0, 1, 3, 2]))
      .mul(1 / Math.sqrt(d / heads))
      .add(bias.ref);
    const mixed = np
      .matmul(nn.softmax(scores, -1), value)
      .transpose([0, 2, 1, 3])
      .reshape([B * T, d]);
    h = h.add(np.matmul(mixed, p[`proj.${l}`]));
    h = h.ref.add(np.matmul(nn.gelu(np.matmul(norm(h, p[`ln2.${l}`]), p[`fc.${l}`])), p[`out.${l}`]));
  }
  bias.dispose();
  const logProbabilities = nn.logSoftmax(np.matmul(norm(h, p.lnf), p.head), -1);
  return logProbabilities
    .mul(targets)
    .sum()
    .mul(-1 / (B * T));
}
const lossAndGradients = jit(valueAndGrad(lossOf));
const adam = jit((p, g, m0, v0, c1, c2) => {
  const m1 = m0.mul(0.9).add(g.ref.mul(0.1));
  const v1 = v0.mul(0.95).add(np.square(g).mul(0.05));
  const update = m1.ref.mul(c1).div(np.sqrt(v1.ref.mul(c2)).add(1e-8));
  return [p.sub(update.mul(lr)), m1, v1];
});

async function step(i) {
  const { tokens, targets } = batch(i, size);
  const oneHot = (ids) => nn.oneHot(np.array(ids, { dtype: np.int32 }), vocab);
  const [loss, gradients] = lossAndGradients(tree.ref(params), oneHot(tokens), oneHot(targets), mask.ref);
  const [c1, c2] = [np.array(1 / (1 - 0.9 ** (i + 1))), np.array(1 / (1 - 0.95 ** (i + 1)))];
  for (const name of Object.keys(params))
    [params[name], m[name], v[name]] = adam(params[name], gradients[name], m[name], v[name], c1.ref, c2.ref);
  c1.dispose();
  c2.dispose();
  await blockUntilReady(tree.ref(params));
  return loss.item ? loss.item() : (await loss.data())[0];
}
await measureTraining("jax-js wasm, jit", size, 8 * d * d, step, { warmup, steps, budgetSeconds });
process.exit(0);
