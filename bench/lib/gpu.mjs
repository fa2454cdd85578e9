/** Timing on a GPU: by its own clock, so that neither launches nor waits count. */
import { deviceTime, scope } from "@llmeff/tensor";
import { median } from "./timing.mjs";

/** Median of the milliseconds that the device takes for `work`, of which every call is timed alone. What it makes is freed. */
export async function medianMs(work, { repeats = 20, warmup = 3 } = {}) {
  const run = () => {
    scope(() => {
      work();
    });
  };
  for (let i = 0; i < warmup; i++) run();
  const times = [];
  for (let i = 0; i < repeats; i++) {
    const start = deviceTime();
    run();
    times.push((await deviceTime()) - (await start));
  }
  return median(times);
}
