/** One way of timing a training step, for us and for peers. */
import { emit, expect } from "./child.mjs";
import { stepFlops } from "./gpt.mjs";
import { median } from "./timing.mjs";

/**
 * Runs `step(i)`, which resolves to the loss, `warmup + steps` times or until the budget is spent, and emits the speed of the fastest step.
 * The loss must begin at that of guessing, and fall.
 */
export async function measureTraining(
  library,
  size,
  feedForward,
  step,
  { warmup, steps, budgetSeconds = 60, more = async () => ({}) },
) {
  const seconds = [];
  const losses = [];
  const begun = performance.now();
  for (let i = 0; i < warmup + steps; i++) {
    const start = performance.now();
    losses.push(await step(i));
    const took = (performance.now() - start) / 1e3;
    if (i >= warmup) seconds.push(took);
    if (i >= warmup && (performance.now() - begun) / 1e3 > budgetSeconds) break;
  }
  const guess = Math.log(size.vocab);
  expect(Math.abs(losses[0] - guess) < 0.25, `${library}: the first loss is ${losses[0]}, expected about ${guess}`);
  expect(losses.at(-1) < losses[0], `${library}: the loss went from ${losses[0]} to ${losses.at(-1)}`);
  const best = Math.min(...seconds);
  const tokens = size.B * size.T;
  emit({
    library,
    ...size,
    stepMs: 1e3 * best,
    medianStepMs: 1e3 * median(seconds),
    tokensPerSecond: tokens / best,
    gflops: stepFlops(size, feedForward) / best / 1e9,
    steps: seconds.length,
    losses: losses.slice(0, 4),
    lastLoss: losses.at(-1),
    ...(await more()),
  });
}
