/**
 * An autoencoder of TensorFlow.js on handwritten characters, trained with the library's own Adam and with AdamW and SONew of @llmeff/optim, each at the same number
 * of learning rates.
 *
 *   pnpm add @tensorflow/tfjs @llmeff/optim      (here: npm start has built the packages)
 *   node examples/tfjs-autoencoder.mjs [STEPS]
 */
import "@tensorflow/tfjs-backend-cpu";
import { AdamW, Sonew } from "@llmeff/optim";
import { tfjsOptimizer } from "@llmeff/optim/tfjs";
import * as tf from "@tensorflow/tfjs-core";
import { initializers, layers, sequential } from "@tensorflow/tfjs-layers";
import { batchOf, compare, loadImages, pixels, random, together } from "./handwriting.mjs";

const steps = Number(process.argv[2] ?? 300);
const batchSize = 64;
await tf.setBackend("cpu");
const { train, valid, test } = loadImages();
const tensorOf = (images) => tf.tensor2d(together(images), [images.length, pixels]);
const [validImages, testImages] = [tensorOf(valid), tensorOf(test)];

function autoencoder() {
  let seed = 0;
  const dense = (units, activation, inputShape) =>
    layers.dense({
      units,
      activation,
      kernelInitializer: initializers.glorotUniform({ seed: ++seed }),
      ...(inputShape && { inputShape }),
    });
  return sequential({
    layers: [dense(64, "tanh", [pixels]), dense(16, "linear"), dense(64, "tanh"), dense(pixels, "sigmoid")],
  });
}

const optimizers = {
  "Adam of TensorFlow.js": (learningRate) => tf.train.adam(learningRate),
  "AdamW of llmeff": (learningRate) =>
    tfjsOptimizer(tf, (params, shapes) => new AdamW(params, { shapes, learningRate, weightDecay: 0 })),
  // Kernels are [in, out]: SONew's chains go along their columns.
  "SONew of llmeff": (learningRate) =>
    tfjsOptimizer(tf, (params, shapes) => new Sonew(params, { shapes, learningRate, order: "col" })),
};

await compare(Object.keys(optimizers), [0.001, 0.003, 0.01, 0.03, 0.1], async (name, rate) => {
  const model = autoencoder();
  model.compile({ optimizer: optimizers[name](rate), loss: "binaryCrossentropy" });
  const next = random(2); // the same batches for all
  for (let step = 0; step < steps; step++) {
    const batch = tf.tensor2d(batchOf(train, batchSize, next), [batchSize, pixels]);
    await model.trainOnBatch(batch, batch);
    batch.dispose();
  }
  const lossOn = (images) => {
    const loss = model.evaluate(images, images, { batchSize: 250 });
    return loss.dataSync()[0];
  };
  const losses = { valid: lossOn(validImages), test: lossOn(testImages) };
  model.dispose();
  return losses;
});
