/** Samples a second of processor time, of 4096 bytes or of the least that the task can be made in. */
import { EVERY_TASK } from "@llmeff/longcontext";
import { childOptions, emit } from "../lib/child.mjs";

const { seconds } = childOptions();
function processorSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

for (const { name, generate, leastBytes } of EVERY_TASK) {
  const maxTokens = Math.max(4096, leastBytes);
  let index = 0;
  // The first samples compile the code.
  const warmedUp = performance.now() + 500 * seconds;
  while (performance.now() < warmedUp) generate({ seed: 1, index: index++, maxTokens });
  const first = index;
  const start = processorSeconds();
  while (processorSeconds() - start < seconds) generate({ seed: 1, index: index++, maxTokens });
  emit({ name, bytes: maxTokens, samplesPerSecond: (index - first) / (processorSeconds() - start) });
}
