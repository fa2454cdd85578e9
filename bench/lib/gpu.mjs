/** Timing on a GPU: by its own clock, so that neither launches nor waits count. */
import { deviceTime, scope, sync } from "@llmeff/tensor";
import { median } from "./timing.mjs";

/** Milliseconds that the device takes for a call of `work`. What it makes is freed. */
export async function deviceMs(work) {
  const start = deviceTime();
  scope(() => {
    work();
  });
  return (await deviceTime()) - (await start);
}

/** Median of the milliseconds that the device takes for `work`, of which every call is timed alone. What it makes is freed. */
export async function medianMs(work, { repeats = 20, warmup = 3 } = {}) {
  const times = [];
  for (let i = -warmup; i < repeats; i++) {
    const ms = await deviceMs(work);
    if (i >= 0) times.push(ms);
  }
  return median(times);
}

/** Mean of the milliseconds that a call of `work` takes when one follows the other, from the first call until all are computed. */
export async function wallMs(work, { repeats = 20, warmup = 3 } = {}) {
  const run = (times) => {
    for (let i = 0; i < times; i++) {
      scope(() => {
        work();
      });
    }
    return sync();
  };
  await run(warmup);
  const start = performance.now();
  await run(repeats);
  return (performance.now() - start) / repeats;
}
