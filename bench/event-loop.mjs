/** What training leaves of the event loop, and whether a step leaks: delays of a 1 ms timer, native bytes at the ends of the steps. */
import { measure } from "./lib/child.mjs";
import { tiny } from "./lib/gpt.mjs";
import { cores } from "./lib/machine.mjs";
import { fixed, printTable } from "./lib/report.mjs";

export const title = "Delays of the event loop while a model trains";

const midSize = { layers: 4, d: 128, heads: 4, T: 128, B: 8, vocab: 512, lr: 1e-3 };
const labels = {
  idle: "nothing runs (the floor)",
  await: "training, await loss.item()",
  sync: "training, loss.itemSync() (the peer)",
};

export async function run({ smoke }) {
  const size = smoke ? tiny : midSize;
  const options = smoke
    ? { size, steps: 12, syncSteps: 4, idleMs: 50 }
    : { size, steps: 300, syncSteps: 60, idleMs: 1000 };
  const rows = await measure("measure/event-loop.mjs", options, { threads: cores });
  const { layers, d, T, B, vocab } = size;
  console.log(
    `\nlayers ${layers}, width ${d}, T ${T}, B ${B}, vocabulary ${vocab}; ${cores} threads, ${rows[0].isa}; milliseconds between turns of a 1 ms timer`,
  );
  const table = rows.map((row) => [
    labels[row.mode],
    row.steps,
    fixed(row.stepMs),
    fixed(row.p50, 2),
    fixed(row.p99, 2),
    fixed(row.max, 2),
  ]);
  printTable(["program", "steps", "ms/step", "p50", "p99", "max"], table);
  const { liveBytes, liveBytesIdentical, liveBytesSeen, steps } = rows.find(({ mode }) => mode === "await");
  console.log(
    liveBytesIdentical
      ? `native bytes at the ends of steps 3 to ${steps}: identical, ${liveBytes}`
      : `native bytes at the ends of steps 3 to ${steps}: NOT identical, among them ${liveBytesSeen.join(", ")}`,
  );
  return rows;
}
