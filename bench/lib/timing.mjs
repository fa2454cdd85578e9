/** How everything here is timed: warmed up, in samples long enough for the clock, with the best and the median of them. */

export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}

export const median = (values) => quantile(values, 0.5);

/**
 * Seconds of one call. `work(count)` makes `count` calls and resolves when all their results are there; a sample is as many calls as take
 * `sampleMs`, so that waiting for the end of a queue does not count against short ones.
 */
export async function time(work, { samples = 9, sampleMs = 20 } = {}) {
  await work(1);
  const [once] = await sample(work, 1, 1);
  const count = Math.max(1, Math.round(sampleMs / 1e3 / once));
  if (count > 1) await work(count);
  const seconds = await sample(work, count, samples);
  return { best: Math.min(...seconds), median: median(seconds), samples, count };
}

async function sample(work, count, samples) {
  const seconds = [];
  for (let i = 0; i < samples; i++) {
    const start = performance.now();
    await work(count);
    seconds.push((performance.now() - start) / 1e3 / count);
  }
  return seconds;
}
