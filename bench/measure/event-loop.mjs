/**
 * How long the event loop of a program that trains is held up. `idle`: nothing runs. `await`: training as one writes it here. `sync`: the
 * same loop with reads that hold up the thread, which is how a binding without a queue of its own behaves (the peer).
 */

import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as wait } from "node:timers/promises";
import { Transformer } from "@llmeff/models";
import { engine } from "@llmeff/native";
import { AdamW } from "@llmeff/optim";
import { memory, scope, sync, tensor, valueAndGrad } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { batch } from "../lib/gpt.mjs";
import { median } from "../lib/timing.mjs";

const { size, steps, syncSteps, idleMs } = childOptions();
const { isa, numThreads: threads } = engine().info();
const { layers, d, heads, T, B, vocab, lr } = size;

/** Milliseconds between turns of a timer of 1 ms while `work` runs. */
async function delays(work) {
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  histogram.enable();
  await wait(20);
  histogram.reset();
  const result = await work();
  histogram.disable();
  const ms = (nanoseconds) => nanoseconds / 1e6;
  return {
    p50: ms(histogram.percentile(50)),
    p99: ms(histogram.percentile(99)),
    max: ms(histogram.max),
    turns: histogram.count,
    ...result,
  };
}

async function train(count, waitForLoss) {
  const model = new Transformer({ vocabSize: vocab, dModel: d, numLayers: layers, numHeads: heads, maxSeqLen: T });
  const params = model.init(1);
  const optimizer = new AdamW(params, { learningRate: lr, beta2: 0.95 });
  const losses = [];
  const liveBytes = [];
  const stepMs = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    const { tokens, targets } = batch(i, size);
    const loss = scope(() => {
      const data = { tokens: tensor(tokens, { shape: [B, T] }), targets: tensor(targets, { shape: [B, T] }) };
      const { value, grads } = valueAndGrad((p) => model.loss(p, data), params);
      optimizer.step(grads);
      return value;
    });
    losses.push(await waitForLoss(loss));
    loss.dispose();
    await sync();
    liveBytes.push(memory().liveBytes);
    stepMs.push(performance.now() - start);
  }
  for (const array of Object.values(params)) array.dispose();
  optimizer.dispose();
  model.dispose();
  expect(losses.at(-1) < losses[0], `the loss went from ${losses[0]} to ${losses.at(-1)}`);
  const steady = new Set(liveBytes.slice(2));
  return {
    steps: count,
    stepMs: median(stepMs),
    firstLoss: losses[0],
    lastLoss: losses.at(-1),
    liveBytes: liveBytes.at(-1),
    liveBytesIdentical: steady.size === 1,
    liveBytesSeen: [...steady].slice(0, 8),
  };
}

/** Blocks until the loss is there, then lets the loop turn once, as a program with anything else to do must. */
async function blocking(loss) {
  const value = loss.itemSync();
  await new Promise((done) => setImmediate(done));
  return value;
}

await train(2, (loss) => loss.item()); // compiles the JavaScript and fills the allocator's cache
emit({ mode: "idle", isa, threads, ...(await delays(() => wait(idleMs))) });
emit({ mode: "await", isa, threads, ...(await delays(() => train(steps, (loss) => loss.item()))) });
emit({ mode: "sync", isa, threads, ...(await delays(() => train(syncSteps, blocking))) });
