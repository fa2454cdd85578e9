/** Optimizer steps as a share of the bandwidth of plain loops over as much memory, measured in the same run. */
import { measure } from "./lib/child.mjs";
import { cores, threadCounts } from "./lib/machine.mjs";
import { streamRates } from "./lib/native.mjs";
import { fixed, percent, printTable } from "./lib/report.mjs";

export const title = "Optimizer steps, float32 (best of the samples)";

/**
 * Bytes a parameter that the step must move: p, g and the state read, p and the state written; SONew of band b has b + 2 arrays of state. A graft's length
 * is known only after a whole pass: tridiagonal SONew reads m, h0, h1, p again in a second one and writes p, with other bands u is written,
 * and read with p. `leastBytes`: of the scheme that moves least, which writes u, in the tridiagonal method into the gradient, which it destroys.
 */
const methods = {
  sgd: { label: "SGD", bytes: 12, leastBytes: 12, arrays: 2 },
  "sgd-momentum": { label: "SGD, momentum", bytes: 20, leastBytes: 20, arrays: 3 },
  adagrad: { label: "Adagrad", bytes: 20, leastBytes: 20, arrays: 3 },
  rmsprop: { label: "RMSprop", bytes: 20, leastBytes: 20, arrays: 3 },
  lion: { label: "Lion", bytes: 20, leastBytes: 20, arrays: 3 },
  nadamw: { label: "NAdamW", bytes: 28, leastBytes: 28, arrays: 4 },
  "schedule-free": { label: "Schedule-Free AdamW", bytes: 28, leastBytes: 28, arrays: 4 },
  adamw: { label: "AdamW", bytes: 28, leastBytes: 28, arrays: 4 },
  sonew: { label: "SONew, no graft", bytes: 36, leastBytes: 36, arrays: 5 },
  "sonew-graft": { label: "SONew, Adam graft", bytes: 48, leastBytes: 44, arrays: 5 },
  ...Object.fromEntries(
    [0, 4, 10].flatMap((band) => {
      const [plain, graft] = [28 + 8 * band, 36 + 8 * band];
      const label = `SONew, band ${band}`;
      return [
        [`sonew${band}`, { label: `${label}, no graft`, bytes: plain, leastBytes: plain, arrays: 4 + band }],
        [`sonew${band}-graft`, { label: `${label}, Adam graft`, bytes: graft, leastBytes: graft, arrays: 4 + band }],
      ];
    }),
  ),
  "plain-adamw": { label: "AdamW in JavaScript (peer)", bytes: 28, leastBytes: 28, arrays: 4 },
};

/** The arrays of a Transformer: 12 layers of width 768, 20 000 words; 100 M parameters. */
export function transformerSizes(layers = 12, d = 768, words = 20_000) {
  const layer = [3 * d * d, d * d, 4 * d * d, 4 * d * d, d, d, 3 * d, 4 * d, d, d];
  return [words * d, ...Array.from({ length: layers }, () => layer).flat()];
}

export async function run({ smoke }) {
  const sampling = smoke ? { samples: 2, sampleMs: 1 } : { samples: 9, sampleMs: 20 };
  const sizes = smoke ? [1000, 20_000] : [1_000_000, 20_000_000];
  const rows = [];
  for (const threads of threadCounts) {
    const cases = sizes.flatMap((n) => [
      ...["adamw", "sonew", "sonew-graft"].flatMap((method) =>
        ["tensors", "Float32Array"].map((coat) => ({ method, coat, n })),
      ),
      ...[0, 4, 10].flatMap((band) =>
        [`sonew${band}`, `sonew${band}-graft`].map((method) => ({ method, coat: "tensors", n })),
      ),
      ...["sgd", "sgd-momentum", "adagrad", "rmsprop", "lion", "nadamw", "schedule-free"].map((method) => ({
        method,
        coat: "tensors",
        n,
      })),
      ...(threads === 1 ? [{ method: "plain-adamw", coat: "Float32Array", n }] : []),
    ]);
    if (!smoke) {
      const model = transformerSizes();
      const n = model.reduce((sum, size) => sum + size, 0);
      for (const method of ["adamw", "sonew", "sonew-graft"]) cases.push({ method, coat: "tensors", n, sizes: model });
    }
    const ours = await measure("measure/optimizers.mjs", { cases, ...sampling }, { threads });
    const ceilings = new Map();
    const table = [];
    for (const row of ours) {
      const { label, bytes, leastBytes, arrays } = methods[row.method];
      const footprint = 4 * arrays * row.n;
      if (!ceilings.has(footprint)) ceilings.set(footprint, await streamRates(threads, footprint));
      const { inPlace: ceiling, ...stream } = ceilings.get(footprint) ?? {};
      const gbs = (bytes * row.n) / row.ms / 1e6;
      const leastGbs = (leastBytes * row.n) / row.ms / 1e6;
      rows.push({ ...row, bytesPerParameter: bytes, gbs, ceilingGbs: ceiling, leastBytes, leastGbs, ...stream });
      const cells = [
        fixed(row.ms, 2),
        fixed(row.nsPerParameter, 2),
        bytes,
        fixed(gbs),
        fixed(ceiling),
        percent(gbs, ceiling),
        fixed(stream.triad),
        percent(leastGbs, stream.triad),
      ];
      table.push([label, row.coat, `${row.n.toExponential(0)} in ${row.arrays}`, ...cells]);
    }
    console.log(
      `\n${threads} thread${threads > 1 ? "s" : ""}, ${ours[0].isa}; ceiling: a ← a·s + b in C over as many bytes as the step's arrays, and STREAM's triad, of which the share at the least bytes possible (${cores > 1 && threads === 1 ? "one core" : "all cores"})`,
    );
    const header = [
      "step",
      "on",
      "parameters in arrays",
      "ms",
      "ns/param",
      "bytes/param",
      "GB/s",
      "ceiling",
      "of ceiling",
    ];
    printTable([...header, "triad", "of triad"], table);
  }
  return rows;
}
