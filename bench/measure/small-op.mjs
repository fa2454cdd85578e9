/** What one small operation costs from the call to its end: sums of two tensors of 16 elements, queued back to back. */
import { engine } from "@llmeff/native";
import { add, ones, scope, sync } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { time } from "../lib/timing.mjs";

const { samples, sampleMs } = childOptions();
const { isa, numThreads: threads } = engine().info();
const [a, b] = [ones([16]), ones([16])];
expect(
  scope(() => add(a, b).dataSync()).every((x) => x === 2),
  "1 + 1",
);

/** Batches, as of a training step, whose scope frees the results. */
const batch = 100;
const work = async (count) => {
  for (let i = 0; i < count; i++) {
    scope(() => {
      for (let j = 0; j < batch; j++) add(a, b);
    });
  }
  await sync();
};
const { best, median } = await time(work, { samples, sampleMs });
emit({ isa, threads, microseconds: (1e6 * best) / batch, medianMicroseconds: (1e6 * median) / batch, samples });
