/**
 * Streams of examples with labels 0 and 1 for online logistic regression: one of real data, and two whose covariance is known.
 */
import { fileURLToPath } from "node:url";
import { fillNormal, loadIdx, Random, streamOf } from "@llmeff/data";
import { matmul, qr, scope, tensor } from "@llmeff/tensor";

const dataset = (name) => loadIdx(fileURLToPath(new URL(`../../../datasets/mnist/${name}`, import.meta.url)));

/** Images that the rates are tuned on; the others are reported on. */
const tuningImages = 10_000;

/** Is the digit odd? Pixels in [0, 1], and a column of ones for the intercept. */
async function mnist({ part, seed, count }) {
  const { data: pixels, shape } = await dataset("train-images-idx3-ubyte.gz");
  const { data: digits } = await dataset("train-labels-idx1-ubyte.gz");
  const size = shape[1] * shape[2];
  const from = part === "tune" ? 0 : tuningImages;
  const to = part === "tune" ? tuningImages : shape[0];
  const order = new Random(seed, `online-convex/mnist/${part}`).permutation(to - from);
  const x = new Float32Array(count * (size + 1)).fill(1);
  const y = new Float32Array(count);
  for (let t = 0; t < count; t++) {
    const image = from + order[t];
    for (let i = 0; i < size; i++) x[t * (size + 1) + i] = pixels[image * size + i] / 255;
    y[t] = digits[image] % 2;
  }
  return { x, y, size: size + 1 };
}

const normal = (seed, purpose, count) =>
  fillNormal(new Float64Array(count), { seed, stream: streamOf(`online-convex/${purpose}`) });

/**
 * Normal examples of covariance `Q diag(λ) Qᵀ` with a random rotation Q and `tr = size`, labels drawn by a logistic model `P(1) = σ(x·w)` whose
 * `w` is as likely in every direction and whose logits have variance 9. Problem and rotation are the same for all seeds.
 */
async function synthetic(decay, { part, seed, count }) {
  const size = 128;
  const eigenvalues = Array.from({ length: size }, (_, i) => (i + 1) ** -decay);
  const scale = size / eigenvalues.reduce((sum, x) => sum + x, 0);
  const deviations = eigenvalues.map((x) => Math.sqrt(x * scale));
  const weights = normal(0, "weights", size);
  const variance = weights.reduce((sum, w, i) => sum + (w * deviations[i]) ** 2, 0);
  const drawn = normal(seed, part, count * size);
  const coins = new Random(seed, `online-convex/labels/${part}`);
  const y = new Float32Array(count);
  for (let t = 0; t < count; t++) {
    let logit = 0;
    for (let i = 0; i < size; i++) {
      drawn[t * size + i] *= deviations[i];
      logit += (drawn[t * size + i] * weights[i] * 3) / Math.sqrt(variance);
    }
    y[t] = coins.uniform() < 1 / (1 + Math.exp(-logit)) ? 1 : 0;
  }
  const rotated = scope(() => {
    const { q } = qr(tensor(normal(0, "rotation", size * size), { shape: [size, size] }));
    return matmul(tensor(drawn, { shape: [count, size] }), q.T);
  });
  const x = Float32Array.from(await rotated.data());
  rotated.dispose();
  return { x, y, size };
}

export const streams = {
  mnist: { label: "MNIST, odd digits against even", make: mnist },
  decaying: { label: "normal examples, eigenvalues i⁻²", make: (options) => synthetic(2, options) },
  flat: { label: "normal examples, equal eigenvalues", make: (options) => synthetic(0, options) },
};
