/** What a call costs when there is next to nothing to compute: microseconds of ops on 16 numbers, enqueued back to back. */
import { measure } from "./lib/child.mjs";
import { cores } from "./lib/machine.mjs";
import { fixed, printTable } from "./lib/report.mjs";

export const title = "Overhead of small operations";

/** Microseconds that an addition of 16 numbers may take. */
const bar = 3;

export async function run({ smoke }) {
  const options = smoke ? { count: 200, samples: 2 } : { count: 20_000, samples: 25 };
  const found = await measure("measure/small-ops.mjs", options, { threads: Math.min(cores, 2) });
  const rows = found.map((row) => (row.name === "add" ? { ...row, bar, ok: row.microseconds <= bar } : row));
  console.log(`\n${rows[0].threads} threads, ${rows[0].isa}; microseconds for each operation`);
  const table = rows.map((row) => [row.name, fixed(row.jsMicroseconds, 2), fixed(row.microseconds, 2), row.bar]);
  printTable(["operation", "JavaScript", "until all have run", "bar"], table);
  return rows;
}
