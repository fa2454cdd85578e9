/**
 * An autoencoder in jax-js on handwritten characters, trained with Adam written in jax-js and with AdamW and SONew of @llmeff/optim in a loop as optax has it,
 * each at the same number of learning rates.
 *
 *   pnpm add @jax-js/jax @llmeff/optim      (here: npm start has built the packages)
 *   node examples/jax-js-autoencoder.mjs [STEPS]
 */
import * as jax from "@jax-js/jax";
import { blockUntilReady, defaultDevice, init, jit, numpy as np, tree, valueAndGrad } from "@jax-js/jax";
import { AdamW, Sonew } from "@llmeff/optim";
import { jaxOptimizer } from "@llmeff/optim/jax-js";
import { batchOf, compare, loadImages, pixels, random, together } from "./handwriting.mjs";

const steps = Number(process.argv[2] ?? 300);
const batchSize = 64;
await init("wasm"); // init() alone asks for `navigator`, which Node 20 doesn't have
defaultDevice("wasm");
const { train, valid, test } = loadImages();
const arrayOf = (values) => np.array(values).reshape([values.length / pixels, pixels]);
const [validImages, testImages] = [arrayOf(together(valid)), arrayOf(together(test))];

/** Glorot's initial weights of the layers, biases 0. */
function initialParams() {
  const next = random(3);
  const sizes = [pixels, 64, 16, 64, pixels];
  return sizes.slice(1).map((out, i) => {
    const bound = Math.sqrt(6 / (sizes[i] + out));
    const weight = Float32Array.from({ length: sizes[i] * out }, () => bound * (2 * next() - 1));
    return { weight: np.array(weight).reshape([sizes[i], out]), bias: np.zeros([out]) };
  });
}

/** Mean binary cross-entropy of the pixels: softplus(z) − y·z for logits z. */
function lossOf(layers, images) {
  let x = images.ref;
  for (const [i, { weight, bias }] of layers.entries()) {
    x = np.matmul(x, weight).add(bias);
    if (i === 0 || i === 2) x = np.tanh(x);
  }
  const softplus = np.maximum(x.ref, 0).add(np.log1p(np.exp(np.absolute(x.ref).mul(-1))));
  return np.mean(softplus.sub(images.mul(x)));
}
const lossAndGradients = jit(valueAndGrad(lossOf));
const loss = jit(lossOf);

/** Adam (Kingma & Ba 2015) in jax-js, with the bias corrections folded into two numbers. */
function adam(learningRate) {
  const [beta1, beta2] = [0.9, 0.999];
  const one = jit((g, m, v, c1, c2) => {
    const m1 = m.mul(beta1).add(g.ref.mul(1 - beta1));
    const v1 = v.mul(beta2).add(np.square(g).mul(1 - beta2));
    return [
      m1.ref
        .mul(c1)
        .div(np.sqrt(v1.ref.mul(c2)).add(1e-8))
        .mul(-learningRate),
      m1,
      v1,
    ];
  });
  return {
    init: (params) => ({ step: 0, moments: tree.leaves(params).map((p) => [np.zerosLike(p.ref), np.zerosLike(p)]) }),
    update(grads, { step, moments }, params) {
      const [leaves, form] = tree.flatten(grads);
      tree.dispose(params);
      const [c1, c2] = [1 / (1 - beta1 ** (step + 1)), 1 / (1 - beta2 ** (step + 1))];
      const stepped = leaves.map((g, i) => one(g, ...moments[i], np.array(c1), np.array(c2)));
      const updates = tree.unflatten(
        form,
        stepped.map(([update]) => update),
      );
      return [updates, { step: step + 1, moments: stepped.map(([, m, v]) => [m, v]) }];
    },
  };
}

const optimizers = {
  "Adam in jax-js": adam,
  "AdamW of llmeff": (learningRate) =>
    jaxOptimizer(jax, (params, shapes) => new AdamW(params, { shapes, learningRate, weightDecay: 0 })),
  // Weights are [in, out]: SONew's chains go along their columns.
  "SONew of llmeff": (learningRate) =>
    jaxOptimizer(jax, (params, shapes) => new Sonew(params, { shapes, learningRate, order: "col" })),
};

await compare(Object.keys(optimizers), [0.001, 0.003, 0.01, 0.03, 0.1], async (name, rate) => {
  let params = initialParams();
  const optimizer = optimizers[name](rate);
  let state = optimizer.init(tree.ref(params));
  const next = random(2); // the same batches for all
  for (let step = 0; step < steps; step++) {
    const [value, grads] = lossAndGradients(tree.ref(params), arrayOf(batchOf(train, batchSize, next)));
    value.dispose();
    let updates;
    [updates, state] = optimizer.update(grads, state, tree.ref(params));
    params = tree.map((p, u) => p.add(u), params, updates);
    await blockUntilReady(tree.ref(params)); // else the work of all steps piles up
  }
  const losses = {
    valid: loss(tree.ref(params), validImages.ref).item(),
    test: loss(params, testImages.ref).item(),
  };
  return losses;
});
process.exit(0); // jax-js keeps its threads
