import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { DTypeError, OptionError } from "@llmeff/native";
import { layers, sequential } from "@tensorflow/tfjs-layers";
import { beforeAll, describe, expect, it } from "vitest";
import { AdamW, Sonew } from "./index.js";
import { tfjsOptimizer } from "./tfjs.js";

beforeAll(async () => {
  await tf.setBackend("cpu");
});

const optimizers = {
  AdamW: (params: Record<string, Float32Array>, shapes: Record<string, readonly number[]>) =>
    new AdamW(params, { shapes, learningRate: 0.02, weightDecay: 0.1, decay: "matrices" }),
  Sonew: (params: Record<string, Float32Array>, shapes: Record<string, readonly number[]>) =>
    new Sonew(params, { shapes, learningRate: 0.02, order: "col", eps: 1e-6 }),
};

/** A model of two dense layers with weights that are the same every time, and data that it can fit. */
function problem() {
  const model = sequential({
    layers: [
      layers.dense({ inputShape: [3], units: 5, activation: "tanh" }),
      layers.dense({ units: 2, useBias: false }),
    ],
  });
  const spread = (n: number, scale: number) => Float32Array.from({ length: n }, (_, i) => scale * Math.sin(1 + 3 * i));
  model.setWeights(model.getWeights().map((w, i) => tf.tensor(spread(w.size, 0.5 + i / 10), w.shape)));
  const x = tf.tensor2d(spread(48, 1), [16, 3]);
  const y = tf.matMul(x, tf.tensor2d(spread(6, 0.7), [3, 2]));
  return { model, x, y };
}

const sumOfSquares = (x: tf.Tensor) => tf.sum(tf.square(x)) as tf.Scalar;
const bits = (tensors: readonly tf.Tensor[]) => tensors.map((w) => Array.from(w.dataSync()));

describe("tfjsOptimizer", () => {
  it.each(["AdamW", "Sonew"] as const)("fits a compiled model, with %s", async (name) => {
    const { model, x, y } = problem();
    const optimizer = tfjsOptimizer(tf, optimizers[name]);
    model.compile({ optimizer, loss: "meanSquaredError" });
    const { history } = await model.fit(x, y, { epochs: 60, batchSize: 16, shuffle: false, verbose: 0 });
    const losses = history.loss as number[];
    expect(losses.at(-1)).toBeLessThan(0.3 * losses[0]!);
    expect(optimizer.inner?.stepCount).toBe(60);
    expect(optimizer.iterations).toBe(60);
  });

  it.each(["AdamW", "Sonew"] as const)("steps as %s does on the arrays themselves, to the bit", async (name) => {
    const { model, x, y } = problem();
    const loss = () => tf.losses.meanSquaredError(y, model.apply(x) as tf.Tensor) as tf.Scalar;
    const names = model.trainableWeights.map((w) => w.name);
    const shapes = Object.fromEntries(model.trainableWeights.map((w) => [w.name, w.shape as number[]]));
    const params = Object.fromEntries(
      model.getWeights().map((w, i) => [names[i]!, Float32Array.from(w.dataSync())] as const),
    );
    const direct = optimizers[name](params, shapes);
    const optimizer = tfjsOptimizer(tf, optimizers[name]);
    for (let step = 0; step < 5; step++) {
      const { grads, value } = tf.variableGrads(loss);
      const numbers = Object.entries(grads).map(([key, g]) => [key, g.dataSync() as Float32Array] as const);
      direct.step(Object.fromEntries(numbers));
      optimizer.applyGradients(
        step % 2 === 0 ? grads : Object.entries(grads).map(([name, tensor]) => ({ name, tensor })),
      );
      tf.dispose([value, ...Object.values(grads)]);
      expect(bits(model.getWeights())).toEqual(names.map((key) => Array.from(params[key]!)));
    }
  });

  it("works from the values that the variables have, and keeps no tensors", () => {
    const w = tf.variable(tf.tensor1d([1, -2]), true, "w");
    const optimizer = tfjsOptimizer(tf, (params) => new AdamW(params, { learningRate: 0.5, weightDecay: 0 }));
    const step = () => optimizer.minimize(() => sumOfSquares(w), false);
    step(); // the first step of AdamW is lr · sign(g)
    expect([...w.dataSync()].map((x) => Number(x.toFixed(4)))).toEqual([0.5, -1.5]);
    const earlier = w.clone();
    w.assign(tf.tensor1d([10, 20]));
    const { numTensors } = tf.memory();
    for (let i = 0; i < 10; i++) step();
    expect(tf.memory().numTensors).toBe(numTensors);
    expect([...earlier.dataSync()].map((x) => Number(x.toFixed(4)))).toEqual([0.5, -1.5]);
    expect(Math.abs(w.dataSync()[0]! - 10)).toBeLessThan(10 * 0.6);
    w.dispose();
  });

  it("takes numbers from the inner optimizer: schedules, norms, state", async () => {
    const w = tf.variable(tf.tensor1d([3, 4]), true, "w2");
    const optimizer = tfjsOptimizer(tf, (params) => new AdamW(params, { learningRate: 0, maxGradNorm: 1 }));
    expect(optimizer.inner).toBeUndefined();
    const step = () => optimizer.minimize(() => tf.mul(sumOfSquares(w), 0.5));
    step();
    expect([...w.dataSync()]).toEqual([3, 4]);
    expect((await optimizer.inner!.gradNorm())!).toBeCloseTo(5, 5);
    optimizer.inner!.learningRate = 0.1;
    step();
    expect(w.dataSync()[0]).toBeLessThan(3);
    expect(Object.keys(optimizer.inner!.stateDict().tensors)).toContain("w2.m");
    optimizer.dispose();
    w.dispose();
  });

  it("refuses variables that came later or are gone, and to be saved with a model", () => {
    const [a, b] = [tf.variable(tf.tensor1d([1]), true, "a"), tf.variable(tf.tensor1d([1]), true, "b")];
    const optimizer = tfjsOptimizer(tf, (params) => new AdamW(params, { learningRate: 0.1 }));
    optimizer.minimize(() => sumOfSquares(a), false, [a]);
    const before = [...a.dataSync()];
    expect(() => optimizer.minimize(() => tf.sum(tf.mul(a, b)), false, [a, b])).toThrow(
      /^\[tfjsOptimizer\] "b" wasn't among the parameters of the first step: a\./,
    );
    expect([...a.dataSync()]).toEqual(before);
    b.dispose();
    expect(() => optimizer.applyGradients({ b: tf.tensor1d([1]) })).toThrow(/there is no variable "b"/);
    expect(() => optimizer.applyGradients({ a: tf.tensor1d([1], "int32") })).toThrow(DTypeError);
    expect(() => optimizer.applyGradients({ a: tf.tensor1d([1, 2]) })).toThrow(/"a" was \[1\]; received \[2\]/);
    expect(() => optimizer.getConfig()).toThrow(OptionError);
    expect(() => tfjsOptimizer(tf, (params) => new AdamW(params)).applyGradients({})).toThrow(/nothing to train/);
    const careless = tfjsOptimizer(tf, () => new AdamW<Float32Array>({ a: Float32Array.of(1) }));
    expect(() => careless.applyGradients({ a: tf.tensor1d([1]) })).toThrow(
      /^\[tfjsOptimizer\] the optimizer must be made for the arrays that its maker is given; it doesn't step that of "a"\./,
    );
    a.dispose();
  });
});
