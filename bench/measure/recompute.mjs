/** Losses and gradients of a Transformer with each choice of `recompute`, turn by turn; their bits must agree. */
import { Transformer } from "@llmeff/models";
import { memory, resetPeakMemory, scope, sync, tensor, valueAndGrad } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { batch, modelConfig } from "../lib/gpt.mjs";
import { median } from "../lib/timing.mjs";

const { size, rounds } = childOptions();
const { T, B } = size;
const model = new Transformer(modelConfig(size));
const params = model.init(1);
const { device } = Object.values(params)[0];
const { tokens, targets } = batch(0, size);
const data = { tokens: tensor(tokens, { shape: [B, T] }), targets: tensor(targets, { shape: [B, T] }) };
const runs = [false, "activations", "selective", "block"].map((recompute) => ({
  recompute,
  seconds: [],
  processorSeconds: [],
  bytes: 0,
}));
const parameterBytes = 4 * model.parameterCount;

/** Takes the loss and the gradients once, and says them in short. */
async function round(run) {
  const { recompute } = run;
  await sync();
  resetPeakMemory(device);
  const before = memory(device).liveBytes;
  const [start, used] = [performance.now(), process.cpuUsage()];
  const { value, grads } = valueAndGrad((p) => model.lossParts(p, data, { recompute }).loss, params);
  await sync();
  const { user, system } = process.cpuUsage(used);
  run.seconds.push((performance.now() - start) / 1e3);
  run.processorSeconds.push((user + system) / 1e6);
  // With the gradients that are there when most activations are: that of the head, which comes first.
  run.bytes = memory(device).peakBytes - before;
  const sums = scope(() => Object.values(grads).map((grad) => grad.sum().itemSync()));
  const result = [value.itemSync(), ...sums].join();
  for (const one of [value, ...Object.values(grads)]) one.dispose();
  return result;
}

const wanted = await round(runs[0]);
runs[0].seconds.length = runs[0].processorSeconds.length = 0;
for (let i = 0; i <= rounds; i++) {
  for (const run of i % 2 === 0 ? runs : [...runs].reverse()) {
    const got = await round(run);
    expect(got === wanted, `recompute ${run.recompute}: other numbers than without`);
    if (i === 0) run.seconds.length = run.processorSeconds.length = 0; // the warm-up
  }
}
for (const { recompute, seconds, processorSeconds, bytes } of runs) {
  emit({
    recompute: recompute || "none",
    ...size,
    stepMs: 1e3 * median(seconds),
    // Of the processors' time, which other programs don't lengthen by taking turns; on a GPU that of JavaScript.
    processorMs: 1e3 * median(processorSeconds),
    activationMiB: bytes / 2 ** 20,
    parameterMiB: parameterBytes / 2 ** 20,
  });
}
