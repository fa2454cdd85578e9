/** Optimizer steps as a share of the bandwidth of a plain in-place loop over as much memory, measured in the same run. */
import { measure } from "./lib/child.mjs";
import { cores, threadCounts } from "./lib/machine.mjs";
import { streamRate } from "./lib/native.mjs";
import { fixed, percent, printTable } from "./lib/report.mjs";

export const title = "Optimizer steps, float32 (best of the samples)";

/**
 * Bytes a parameter that the step must move: p, g, m, v read and p, m, v written; SONew has one more array of state, and with a graft,
 * whose length is known only after a whole pass, reads m, h0, h1, p again and writes p in a second one.
 */
const methods = {
  adamw: { label: "AdamW", bytes: 28, arrays: 4 },
  sonew: { label: "SONew, no graft", bytes: 36, arrays: 5 },
  "sonew-graft": { label: "SONew, Adam graft", bytes: 48, arrays: 5 },
  "plain-adamw": { label: "AdamW in JavaScript (peer)", bytes: 28, arrays: 4 },
};

export async function run({ smoke }) {
  const sampling = smoke ? { samples: 2, sampleMs: 1 } : { samples: 9, sampleMs: 20 };
  const sizes = smoke ? [1000, 20_000] : [1_000_000, 20_000_000];
  const rows = [];
  for (const threads of threadCounts) {
    const cases = sizes.flatMap((n) => [
      ...["adamw", "sonew", "sonew-graft"].flatMap((method) =>
        ["tensors", "Float32Array"].map((coat) => ({ method, coat, n })),
      ),
      ...(threads === 1 ? [{ method: "plain-adamw", coat: "Float32Array", n }] : []),
    ]);
    const ours = await measure("measure/optimizers.mjs", { cases, ...sampling }, { threads });
    const ceilings = new Map();
    const table = [];
    for (const row of ours) {
      const { label, bytes, arrays } = methods[row.method];
      const footprint = 4 * arrays * row.n;
      if (!ceilings.has(footprint)) ceilings.set(footprint, await streamRate(threads, footprint));
      const ceiling = ceilings.get(footprint);
      const gbs = (bytes * row.n) / row.ms / 1e6;
      rows.push({ ...row, bytesPerParameter: bytes, gbs, ceilingGbs: ceiling });
      const cells = [
        fixed(row.ms, 2),
        fixed(row.nsPerParameter, 2),
        bytes,
        fixed(gbs),
        fixed(ceiling),
        percent(gbs, ceiling),
      ];
      table.push([label, row.coat, row.n.toExponential(0), ...cells]);
    }
    console.log(
      `\n${threads} thread${threads > 1 ? "s" : ""}, ${ours[0].isa}; ceiling: a ← a·s + b in C over as many bytes as the step's arrays (${cores > 1 && threads === 1 ? "one core" : "all cores"})`,
    );
    printTable(["step", "on", "parameters", "ms", "ns/param", "bytes/param", "GB/s", "ceiling", "of ceiling"], table);
  }
  return rows;
}
