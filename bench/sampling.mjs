/** What drawing one token costs the host, beside sorting all of a vocabulary for it. */
import { measure } from "./lib/child.mjs";
import { fixed, printTable } from "./lib/report.mjs";

export const title = "Drawing a token on the host";

export async function run({ smoke }) {
  const rows = await measure(
    "measure/sampling.mjs",
    { V: smoke ? 500 : 50_304, rounds: smoke ? 2 : 101 },
    { threads: 1 },
  );
  console.log(`\n${rows[0].V} tokens; medians of ${rows[0].rounds} alternating rounds`);
  printTable(
    ["scores", "filters", "ms", "by sorting, ms", "of that"],
    rows.map((row) => [row.scores, row.filters, fixed(row.ms, 3), fixed(row.sortMs, 3), fixed(row.ms / row.sortMs, 3)]),
  );
  return rows;
}
