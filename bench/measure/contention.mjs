/** Products and training steps a second over some seconds: the mean, because what other programs take comes in slices. */

import { Transformer } from "@llmeff/models";
import { engine } from "@llmeff/native";
import { AdamW } from "@llmeff/optim";
import { matmul, randomNormal, scope, sync, tensor, valueAndGrad } from "@llmeff/tensor";
import { childOptions, emit } from "../lib/child.mjs";
import { batch } from "../lib/gpt.mjs";

const { n, size, seconds, rounds } = childOptions();
const { isa, numThreads: threads } = engine().info();

/**
 * The best mean of a few rounds, so that a program that was not started here counts as little as it may; and calls for each second that the
 * cores spent on this process, which waiting awake for a thread without a core would lower.
 */
async function rate(call) {
  for (let i = 0; i < 3; i++) await call();
  let perSecond = 0;
  let perCoreSecond = 0;
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    const before = process.cpuUsage();
    let count = 0;
    let elapsed = 0;
    do {
      await call();
      count++;
      elapsed = (performance.now() - start) / 1e3;
    } while (elapsed < seconds);
    const { user, system } = process.cpuUsage(before);
    perSecond = Math.max(perSecond, count / elapsed);
    perCoreSecond = Math.max(perCoreSecond, count / ((user + system) / 1e6));
  }
  return { perSecond, perCoreSecond };
}

const a = randomNormal({ seed: 1 }, [n, n]);
const b = randomNormal({ seed: 2 }, [n, n]);
const product = async () => {
  scope(() => void matmul(a, b));
  await sync();
};
emit({ work: `matmul ${n}³`, isa, threads, ...(await rate(product)) });

const { layers, d, heads, T, B, vocab, lr } = size;
const model = new Transformer({ vocabSize: vocab, dModel: d, numLayers: layers, numHeads: heads, maxSeqLen: T });
const params = model.init(1);
const optimizer = new AdamW(params, { learningRate: lr });
const { tokens, targets } = batch(0, size);
const step = async () => {
  const loss = scope(() => {
    const data = { tokens: tensor(tokens, { shape: [B, T] }), targets: tensor(targets, { shape: [B, T] }) };
    const { value, grads } = valueAndGrad((p) => model.loss(p, data), params);
    optimizer.step(grads);
    return value;
  });
  await loss.item();
  loss.dispose();
};
emit({ work: "training step", isa, threads, ...(await rate(step)) });
