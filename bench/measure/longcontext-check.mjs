/** Makes samples of every task at every length and solves them again; one that is not solved ends the run. */
import { checkSample, EVERY_TASK } from "@llmeff/longcontext";
import { childOptions, emit, expect } from "../lib/child.mjs";

const { samples, lengths } = childOptions();
const cells = lengths.flatMap((maxTokens) =>
  EVERY_TASK.filter(({ leastBytes }) => leastBytes <= maxTokens).map((variant) => ({ ...variant, maxTokens })),
);
const start = performance.now();
for (let i = 0; i < samples; i++) {
  const { name, generate, maxTokens } = cells[i % cells.length];
  const sample = generate({ seed: 2026, index: Math.floor(i / cells.length), maxTokens });
  const { ok, problems } = checkSample(sample);
  expect(ok, `${name}, ${sample.id}: ${problems.join("; ")}`);
}
emit({ name: "solved again", samples, lengths, seconds: (performance.now() - start) / 1e3 });
