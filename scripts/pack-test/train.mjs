/**
 * Fits a linear model to noiseless data with 100 SONew steps on plain Float32Arrays; runs in a project that holds only the tarballs, so the
 * steps are computed by the engine of the installed platform package.
 */
import { Sonew } from "@llmeff/optim";

const [samples, features, steps] = [64, 8, 100];
const inputs = Float32Array.from({ length: samples * features }, (_, i) => Math.sin(12.9898 * (i + 1)) * 1.5);
const truth = Float32Array.from({ length: features }, (_, j) => ((j % 3) - 1) * 0.5 + 0.1 * j);
const row = (i) => inputs.subarray(i * features, (i + 1) * features);
const dot = (a, b) => a.reduce((sum, value, j) => sum + value * b[j], 0);

const params = { weight: new Float32Array(features), bias: new Float32Array(1) };
const grads = { weight: new Float32Array(features), bias: new Float32Array(1) };

/** Mean squared error against `truth · x + 0.3`; leaves the gradients in `grads`. */
function lossAndGradients() {
  grads.weight.fill(0);
  grads.bias.fill(0);
  let loss = 0;
  for (let i = 0; i < samples; i++) {
    const residual = dot(row(i), params.weight) + params.bias[0] - (dot(row(i), truth) + 0.3);
    loss += residual ** 2 / samples;
    row(i).forEach((value, j) => {
      grads.weight[j] += (2 * residual * value) / samples;
    });
    grads.bias[0] += (2 * residual) / samples;
  }
  return loss;
}

const optimizer = new Sonew(params, { learningRate: 0.05 });
const first = lossAndGradients();
for (let step = 0; step < steps; step++) {
  optimizer.step(grads);
  lossAndGradients();
}
const last = lossAndGradients();
console.log(`loss ${first.toFixed(4)} -> ${last.toFixed(4)} in ${steps} SONew steps`);
if (!(last < first / 10)) throw new Error(`the loss fell from ${first} to ${last} only`);
