/** Timing on a GPU: by its own clock, so that neither launches nor waits count. */
import { deviceTime, scope, sync } from "@llmeff/tensor";
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
