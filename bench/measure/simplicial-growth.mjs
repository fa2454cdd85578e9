/** Time and memory of a 2-simplicial layer, forward and with gradients, for one shape after the other. T queries at the end of S positions. */
import { engine } from "@llmeff/native";
import { memory, randomNormal, resetPeakMemory, scope, simplicialAttention, sync, valueAndGrad } from "@llmeff/tensor";
import { childOptions, emit } from "../lib/child.mjs";
import { time } from "../lib/timing.mjs";

const { cases, samples, sampleMs } = childOptions();
const { isa, numThreads: threads } = engine().info();

for (const shape of cases) {
  const { T, S, H, K, D, w1, w2 } = shape;
  const keys = [1, S, K, D];
  const inputs = [[1, T, H, D], keys, keys, keys, keys].map((s, i) => randomNormal({ seed: 1, stream: i }, s));
  const layer = (xs) => simplicialAttention(...xs, { w1: w1 || undefined, w2: w2 || undefined });
  const forward = async (count) => {
    for (let i = 0; i < count; i++) scope(() => void layer(inputs));
    await sync();
  };
  const both = async (count) => {
    for (let i = 0; i < count; i++) scope(() => void valueAndGrad((xs) => layer(xs).sum(), inputs));
    await sync();
  };
  await sync();
  resetPeakMemory();
  const { liveBytes } = memory();
  await both(1);
  const peakBytes = memory().peakBytes - liveBytes;
  const seconds = {
    forward: await time(forward, { samples, sampleMs }),
    both: await time(both, { samples, sampleMs }),
  };
  emit({
    ...shape,
    isa,
    threads,
    forwardMs: 1e3 * seconds.forward.best,
    bothMs: 1e3 * seconds.both.best,
    peakBytes,
    residentBytes: process.memoryUsage.rss(),
    samples,
  });
  for (const x of inputs) x.dispose();
}
