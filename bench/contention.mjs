/**
 * What other programs leave of the engine's speed: products and training steps on all cores while 0, 1, 2 … other processes are busy. With as
 * many threads as cores, the fair share of `busy` other processes is `threads / (threads + busy)` of the idle machine's speed.
 */
import { spawn } from "node:child_process";
import { measure } from "./lib/child.mjs";
import { tiny } from "./lib/gpt.mjs";
import { cores } from "./lib/machine.mjs";
import { fixed, percent, printTable } from "./lib/report.mjs";

export const title = "Speed while other processes are busy";

const midSize = { layers: 4, d: 128, heads: 4, T: 128, B: 8, vocab: 512, lr: 1e-3 };

/** Runs `work` while `count` processes keep a core each from being idle. */
async function besides(count, work) {
  const others = Array.from({ length: count }, () => spawn(process.execPath, ["-e", "for (;;);"], { stdio: "ignore" }));
  try {
    return await work();
  } finally {
    for (const other of others) other.kill("SIGKILL");
  }
}

export async function run({ smoke }) {
  const options = smoke
    ? { n: 64, size: tiny, seconds: 0.05, rounds: 1 }
    : { n: 512, size: midSize, seconds: 2, rounds: 3 };
  const rows = [];
  for (const busy of smoke ? [0, 1] : [0, 1, 2]) {
    const found = await besides(busy, () => measure("measure/contention.mjs", options, { threads: cores }));
    for (const row of found) rows.push({ ...row, busy, fairShare: cores / (cores + busy) });
  }
  const idle = (work) => rows.find((row) => row.work === work && row.busy === 0).perSecond;
  console.log(`\n${cores} threads on ${cores} cores, ${rows[0].isa}`);
  const table = rows.map((row) => [
    row.work,
    row.busy,
    fixed(row.perSecond),
    percent(row.perSecond, idle(row.work)),
    percent(row.fairShare, 1),
    fixed(row.perCoreSecond),
  ]);
  printTable(["work", "busy processes", "per second", "of the idle machine's", "fair share", "per core second"], table);
  return rows.map((row) => ({ ...row, share: row.perSecond / idle(row.work) }));
}
