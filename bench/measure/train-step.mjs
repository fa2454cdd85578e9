/** Training steps of our Transformer with AdamW, and a matrix product of the same process as the ceiling. */
import { Transformer } from "@llmeff/models";
import { engine } from "@llmeff/native";
import { AdamW } from "@llmeff/optim";
import { matmul, memory, ones, resetPeakMemory, scope, sync, tensor, valueAndGrad } from "@llmeff/tensor";
import { childOptions } from "../lib/child.mjs";
import { batch, ffnDim, modelConfig } from "../lib/gpt.mjs";
import { median, time } from "../lib/timing.mjs";
import { measureTraining } from "../lib/training.mjs";

const { size, warmup, steps, matmulSize, sampling } = childOptions();
const { isa, numThreads: threads } = engine().info();
const { d, T, B, lr } = size;
const model = new Transformer(modelConfig(size));
const params = model.init(1);
const optimizer = new AdamW(params, { learningRate: lr, beta1: 0.9, beta2: 0.95, eps: 1e-8 });
const javascriptMs = [];

/** Everything up to the wait for the loss only queues work: that is the JavaScript of a step. */
async function step(i) {
  const { tokens, targets } = batch(i, size);
  const start = performance.now();
  const loss = scope(() => {
    const shape = { shape: [B, T] };
    const data = { tokens: tensor(tokens, shape), targets: tensor(targets, shape) };
    const { value, grads } = valueAndGrad((p) => model.loss(p, data), params);
    optimizer.step(grads);
    return value;
  });
  javascriptMs.push(performance.now() - start);
  const value = await loss.item();
  loss.dispose();
  await sync();
  return value;
}

async function matmulGflops() {
  const a = ones([matmulSize, matmulSize]);
  const work = async (count) => {
    for (let i = 0; i < count; i++) scope(() => void matmul(a, a));
    await sync();
  };
  const { best } = await time(work, sampling);
  a.dispose();
  return (2 * matmulSize ** 3) / best / 1e9;
}

const before = await matmulGflops();
resetPeakMemory();
await measureTraining("llmeff", size, 3 * d * ffnDim(d), step, {
  warmup,
  steps,
  more: async () => ({
    isa,
    threads,
    ffnDim: ffnDim(d),
    parameters: model.parameterCount,
    javascriptMs: Math.min(...javascriptMs.slice(warmup)),
    medianJavascriptMs: median(javascriptMs.slice(warmup)),
    executedFlopsPerToken: model.flopsPerToken(T).total,
    peakMiB: memory().peakBytes / 2 ** 20,
    matmulGflops: Math.max(before, await matmulGflops()),
  }),
});
