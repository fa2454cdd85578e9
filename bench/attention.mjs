/**
 * Dot-product and 2-simplicial attention as a share of the rate of matrix products in the same process. FLOPs are counted as for
 * matrix products, over the pairs that masks and windows allow: 4·D a query head and pair forward, 10·D backward (recomputed logits included).
 */
import { measure } from "./lib/child.mjs";
import { threadCounts } from "./lib/machine.mjs";
import { openblasAttention } from "./lib/native.mjs";
import { fixed, percent, printTable } from "./lib/report.mjs";

export const title = "Attention, float32, GFLOP/s (best of the samples)";

const dot = (name, B, T, H, D, masks = {}) => ({ name, kind: "dot", B, T, S: T, H, K: H, D, w1: 0, w2: 0, ...masks });
const simplicial = (name, shape) => ({ name, kind: "simplicial", ...shape });
const cases = [
  dot("dot-product B8 T256 H4 D64", 8, 256, 4, 64),
  dot("dot-product B1 T2048 H8 D128", 1, 2048, 8, 128),
  dot("dot-product B1 T4096 H4 D64, window 256", 1, 4096, 4, 64, { w1: 256 }),
  dot("dot-product B1 T2048 H4 D64", 1, 2048, 4, 64),
  dot("dot-product B1 T2048 H4 D64, 8 documents", 1, 2048, 4, 64, { documents: 8 }),
  dot("dot-product B4 T512 H8 G2 D64", 4, 512, 8, 64, { K: 2 }),
  dot("dot-product B8 T256 H4 D64, softcap", 8, 256, 4, 64, { softcap: 50 }),
  dot("decoding B1 S32768 H8 D128", 1, 1, 8, 128, { S: 32768 }),
  dot("decoding B1 S32768 H8 G2 D128", 1, 1, 8, 128, { S: 32768, K: 2 }),
  // The paper's layer: 64 query heads on one key/value head, windows 512 × 32. 24 queries whose windows are full.
  simplicial("2-simplicial 512×32 G64 D128", { B: 1, T: 24, S: 535, H: 64, K: 1, D: 128, w1: 512, w2: 32 }),
  simplicial("2-simplicial 32×8 B8 T256 H4 D64", { B: 8, T: 256, S: 256, H: 4, K: 4, D: 64, w1: 32, w2: 8 }),
  simplicial("2-simplicial 64×16 B1 T512 H8 G4 D64", { B: 1, T: 512, S: 512, H: 8, K: 2, D: 64, w1: 64, w2: 16 }),
];
const smokeCases = [
  dot("dot-product B1 T33 H2 D16", 1, 33, 2, 16),
  dot("dot-product B1 T32 H2 D16, documents, softcap", 1, 32, 2, 16, { documents: 2, softcap: 5 }),
  dot("decoding B1 S65 H4 G2 D16", 1, 1, 4, 16, { S: 65, K: 2 }),
  simplicial("2-simplicial 8×4 G2 D16", { B: 1, T: 12, S: 21, H: 2, K: 1, D: 16, w1: 8, w2: 4 }),
];

/** The peer computes causal attention of as many queries as keys, a head with its own keys. */
const comparable = ({ kind, T, S, H, K, w1, softcap, documents }) =>
  kind === "dot" && T === S && H === K && w1 === 0 && softcap === 0 && documents === 1;

export async function run({ smoke }) {
  const sampling = smoke ? { samples: 2, sampleMs: 1, matmulSize: 64 } : { samples: 5, sampleMs: 20, matmulSize: 1024 };
  const rows = [];
  for (const threads of threadCounts) {
    const ours = await measure(
      "measure/attention.mjs",
      { cases: smoke ? smokeCases : cases, ...sampling },
      { threads },
    );
    const table = [];
    for (const row of ours) {
      const peer = comparable(row.shape) ? await openblasAttention(row.shape, threads, row.isa, sampling) : undefined;
      rows.push({ ...row, openblasForwardMs: peer === undefined ? undefined : 1e3 * peer });
      table.push([
        row.name,
        fixed(row.matmulGflops),
        fixed(row.forwardGflops),
        percent(row.forwardGflops, row.matmulGflops),
        fixed(row.backwardGflops),
        percent(row.backwardGflops, row.matmulGflops),
        fixed(row.forwardMs, 2),
        row.shape.T === 1 ? fixed(row.forwardGBs) : undefined,
        peer === undefined ? undefined : fixed(1e3 * peer, 2),
      ]);
    }
    console.log(
      `\n${threads} thread${threads > 1 ? "s" : ""}, ${ours[0].isa}; ceiling: our matrix product ${sampling.matmulSize}³, measured before and after each row`,
    );
    console.log(
      "peer: softmax(q kᵀ) v with OpenBLAS, a head at a time over the whole square (there is none for pairs of positions)",
    );
    printTable(
      ["case", "matmul", "forward", "of matmul", "backward", "of matmul", "forward ms", "GB/s", "OpenBLAS ms"],
      table,
    );
  }
  return rows;
}
