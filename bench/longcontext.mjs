/** Samples of the long-context tasks: how fast they are made, in how much memory, and whether each is solved again from its prompt. */
import { measure } from "./lib/child.mjs";
import { fixed, printTable } from "./lib/report.mjs";

export const title = "Long-context samples";

/** Seconds and MB that one sample may take. */
const bars = { 1e6: [1, 400], 1e7: [60, 500] };
/** Samples a second of 4096 bytes. */
const rateBar = 200;

export async function run({ smoke }) {
  const samples = smoke ? 43 : 10_000;
  const lengths = smoke ? [4096, 16_384] : [4096, 16_384, 65_536, 131_072];
  const checked = await measure("measure/longcontext-check.mjs", { samples, lengths });
  console.log(
    `\n${checked[0].samples} samples over all tasks to ${lengths.at(-1)} bytes solved again from their prompts`,
  );
  const rates = await measure("measure/longcontext-rate.mjs", { seconds: smoke ? 0.01 : 1 });
  const rateRows = rates.map((row) =>
    row.bytes > 4096 ? row : { ...row, bar: rateBar, ok: row.samplesPerSecond >= rateBar },
  );
  console.log("\nSamples a second of processor time, at 4096 bytes or the least for the task");
  printTable(
    ["task", "bytes", "samples/s", "bar"],
    rateRows.map((row) => [row.name, row.bytes, fixed(row.samplesPerSecond, 0), row.bar]),
  );
  const sizes = [];
  for (const bytes of smoke ? [100_000] : [1e6, 1e7]) {
    for (const { name } of smoke ? rates.slice(0, 2) : rates) {
      const [row] = await measure("measure/longcontext-size.mjs", { name, bytes });
      const [seconds, megabytes] = bars[bytes] ?? [];
      sizes.push({
        ...row,
        barSeconds: seconds,
        barMegabytes: megabytes,
        ok: !(row.seconds > seconds || row.megabytes > megabytes),
      });
    }
  }
  console.log(
    "\nOne sample in a process of its own, written as a line of JSON: seconds and peak memory of the process",
  );
  printTable(
    ["sample", "bytes", "seconds", "of the processor", "bar", "MB", "bar"],
    sizes.map((row) => [
      row.name,
      row.bytes,
      fixed(row.seconds, 2),
      fixed(row.processorSeconds, 2),
      row.barSeconds,
      fixed(row.megabytes, 0),
      row.barMegabytes,
    ]),
  );
  return [...checked, ...rateRows, ...sizes];
}
