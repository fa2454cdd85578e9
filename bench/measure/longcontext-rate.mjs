/** Samples a second of 4096 bytes, of every task that can be so short. */
import { EVERY_TASK } from "@llmeff/longcontext";
import { childOptions, emit } from "../lib/child.mjs";

const { seconds } = childOptions();
for (const { name, generate, leastBytes } of EVERY_TASK) {
  const maxTokens = Math.max(4096, leastBytes);
  let index = 0;
  // The first samples compile the code.
  const warmedUp = performance.now() + 500 * seconds;
  while (performance.now() < warmedUp) generate({ seed: 1, index: index++, maxTokens });
  const first = index;
  const start = performance.now();
  while (performance.now() - start < 1e3 * seconds) generate({ seed: 1, index: index++, maxTokens });
  emit({ name, bytes: maxTokens, samplesPerSecond: (1e3 * (index - first)) / (performance.now() - start) });
}
