/** Matrix products: our GFLOP/s beside the most that the cores can do and beside OpenBLAS, all measured in this run. */
import { measure } from "./lib/child.mjs";
import { threadCounts } from "./lib/machine.mjs";
import { fmaPeak, openblas } from "./lib/native.mjs";
import { measurePeers } from "./lib/peers.mjs";
import { fixed, percent, printTable } from "./lib/report.mjs";

export const title = "Matrix products, float32, GFLOP/s (best of the samples)";

const square = (n) => ({ name: `${n}³`, m: n, n, k: n });
/** Those of the training step in `train-step`: 2048 tokens, width 256, feed-forward 688, 4096 words. */
const trainingShapes = [
  { name: "projection 2048×256×256 ·ᵀ", m: 2048, n: 256, k: 256, tb: true },
  { name: "feed-forward in 2048×688×256 ·ᵀ", m: 2048, n: 688, k: 256, tb: true },
  { name: "feed-forward out 2048×256×688 ·ᵀ", m: 2048, n: 256, k: 688, tb: true },
  { name: "output layer 2048×4096×256 ·ᵀ", m: 2048, n: 4096, k: 256, tb: true },
  { name: "weight gradient 688×256×2048 ᵀ·", m: 688, n: 256, k: 2048, ta: true },
];

export async function run({ smoke, peers }) {
  const sampling = smoke ? { samples: 2, sampleMs: 1 } : { samples: 9, sampleMs: 25 };
  const squares = (smoke ? [64, 128] : [512, 1024, 2048]).map(square);
  const shapes = smoke ? squares : [...squares, ...trainingShapes];
  const rows = [];
  let isas = [];

  for (const threads of threadCounts) {
    const ours = await measure("measure/matmul.mjs", { shapes, ...sampling }, { threads });
    const { isa, availableIsas } = ours[0];
    isas = availableIsas;
    const peak = await fmaPeak(isa, threads);
    const blas = await openblas(shapes, threads, isa, sampling);
    const table = ours.map((row, i) => {
      const peer = blas?.[i];
      rows.push({ ...row, ceilingGflops: peak, openblasGflops: peer?.gflops, openblasKernels: peer?.core });
      return [
        row.name,
        fixed(row.gflops),
        percent(row.gflops, peak),
        fixed(peer?.gflops),
        percent(row.gflops, peer?.gflops),
      ];
    });
    const kernels = [...new Set(blas?.map(({ core }) => core))].join(", ");
    console.log(
      `\n${threads} thread${threads > 1 ? "s" : ""}, ${isa}; ceiling: ${fixed(peak) ?? "not measured (no C compiler)"} GFLOP/s of multiply-adds in registers`,
    );
    console.log(blas ? `peer: the system's OpenBLAS (${kernels} kernels)` : "peer: no OpenBLAS on this system");
    printTable(["m×n×k", "llmeff", "of ceiling", "OpenBLAS", "of OpenBLAS"], table);
  }

  console.log(`\nEvery instruction set of this binary, ${squares.at(-2).name}, 1 thread`);
  const table = [];
  for (const isa of isas) {
    const [row] = await measure("measure/matmul.mjs", { shapes: [squares.at(-2)], ...sampling }, { threads: 1, isa });
    const peak = await fmaPeak(isa, 1);
    rows.push({ ...row, forced: true, ceilingGflops: peak });
    table.push([isa, fixed(row.gflops), fixed(peak), percent(row.gflops, peak)]);
  }
  printTable(["instructions", "llmeff", "ceiling", "of ceiling"], table);

  if (peers) {
    console.log("\nOther JavaScript libraries");
    const sizes = squares.map(({ n }) => n);
    const found = await measurePeers("matmul", { sizes, threads: threadCounts, ...sampling });
    rows.push(...found);
    printTable(
      ["library", "n", "threads", "GFLOP/s"],
      found.map((row) => [row.library, row.n, row.threads, fixed(row.gflops)]),
    );
  }
  return rows;
}
