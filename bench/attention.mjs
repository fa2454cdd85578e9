/**
 * Dot-product and 2-simplicial attention as a share of the rate of matrix products in the same process. FLOPs are counted as for
 * matrix products, over the pairs that masks and windows allow: 4·D a query head and pair forward, 10·D backward (recomputed logits included).
 */
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { measure } from "./lib/child.mjs";
import { fitLine } from "./lib/fit.mjs";
import { threadCounts } from "./lib/machine.mjs";
import { openblasAttention } from "./lib/native.mjs";
import { fixed, percent, printTable } from "./lib/report.mjs";
import { torchLines } from "./lib/torch.mjs";

export const title = "Attention, float32, GFLOP/s (best of the samples)";

const dot = (name, B, T, H, D, masks = {}) => ({ name, kind: "dot", B, T, S: T, H, K: H, D, w1: 0, w2: 0, ...masks });
const simplicial = (name, shape) => ({ name, kind: "simplicial", ...shape });
/** The layer that must come near the rate of matrix products. */
export const layer = { B: 1, T: 2048, S: 2048, H: 8, K: 1, D: 64, w1: 256, w2: 16 };
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
  simplicial("2-simplicial 256×16 B1 T2048 G8 D64", layer),
  simplicial("2-simplicial ∞×8 B1 T2048 G8 D64", { ...layer, w1: 0, w2: 8 }),
  // The paper's layer: 64 query heads on one key/value head, windows 512 × 32. 24 queries whose windows are full.
  simplicial("2-simplicial 512×32 G64 D128", { B: 1, T: 24, S: 535, H: 64, K: 1, D: 128, w1: 512, w2: 32 }),
  simplicial("2-simplicial 32×8 B8 T256 H4 D64", { B: 8, T: 256, S: 256, H: 4, K: 4, D: 64, w1: 32, w2: 8 }),
  simplicial("2-simplicial 32×8 B8 T256 G4 D64", { B: 8, T: 256, S: 256, H: 4, K: 1, D: 64, w1: 32, w2: 8 }),
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

/** What grows, and the layers to measure it on: for windows, queries that see whole ones. */
export function growthSeries(smoke) {
  const base = { H: 8, K: 1, D: 64, w1: 256, w2: 16 };
  const [most, queries] = smoke ? [4, 4] : [16, 512];
  const factors = [1, 2, 4, 8, 16].filter((factor) => factor <= most);
  const length = (T) => ({ ...base, T, S: T });
  const windows = (w1, w2) => ({ ...base, T: queries, S: queries + Math.max(w1, w2) - 1, w1, w2 });
  return {
    N: factors.map((factor) => length((smoke ? 16 : 1024) * factor)),
    w1: factors.map((factor) => windows(64 * factor, 16)),
    w2: factors.map((factor) => windows(256, 4 * factor)),
  };
}

/** Time and memory of the layer as its length and its windows grow, and how far they are from straight lines. */
async function growth(threads, { smoke, ...sampling }) {
  const rows = [];
  for (const [what, series] of Object.entries(growthSeries(smoke))) {
    const measured = await measure("measure/simplicial-growth.mjs", { cases: series, ...sampling }, { threads });
    const xs = measured.map((row) => (what === "N" ? row.T : row[what]));
    const fit = (key) =>
      fitLine(
        xs,
        measured.map((row) => row[key]),
      ).residual;
    const residuals = { forward: fit("forwardMs"), both: fit("bothMs"), memory: fit("peakBytes") };
    rows.push(...measured.map((row) => ({ name: `growth with ${what}`, ...row, residuals })));
    console.log(`\ngrowth with ${what}, ${threads} threads`);
    printTable(
      [what, "forward ms", "with gradients ms", "peak MiB of tensors", "MiB of the process"],
      measured.map((row, i) => [
        xs[i],
        fixed(row.forwardMs, 2),
        fixed(row.bothMs, 2),
        fixed(row.peakBytes / 2 ** 20),
        fixed(row.residentBytes / 2 ** 20),
      ]),
    );
    const [forward, both, memory] = Object.values(residuals).map((x) => `${(100 * x).toFixed(1)} %`);
    console.log(`farthest from a straight line: forward ${forward}, with gradients ${both}, memory ${memory}`);
  }
  return rows;
}

/** The layer in PyTorch operations, in several ways, beside ours. */
async function torchPeers(threads, { smoke, samples, sampleMs }) {
  const shape = smoke ? { ...layer, T: 48, S: 48, w1: 16, w2: 4 } : layer;
  const data = join(tmpdir(), `llmeff-simplicial-${process.pid}.f32`);
  try {
    await measure("measure/simplicial-data.mjs", { shape, path: data });
    const found = await torchLines("peers/simplicial_torch.py", {
      shape,
      threads,
      samples: Math.min(samples, 3),
      maxBytes: 8e9,
      data,
    });
    if (found === undefined) {
      console.log("\npeer: no PyTorch on this system (LLMEFF_PYTHON names a Python that has it)");
      return [];
    }
    const [ours] = await measure("measure/simplicial-growth.mjs", { cases: [shape], samples, sampleMs }, { threads });
    console.log(
      `\n${threads} threads: the 256×16 layer in PyTorch ${found[0].torch} operations, every way checked against ours`,
    );
    printTable(
      ["expression", "forward ms", "ours", "with gradients ms", "ours"],
      found.map(({ name, forward, both }) => [
        name,
        fixed(1e3 * forward),
        `${fixed((1e3 * forward) / ours.forwardMs)} ×`,
        fixed(1e3 * both),
        `${fixed((1e3 * both) / ours.bothMs)} ×`,
      ]),
    );
    const peer = ({ forward, both, ...row }) => ({ ...row, forwardMs: 1e3 * forward, bothMs: 1e3 * both });
    return [{ name: "llmeff", ...ours }, ...found.map((row) => ({ shape, ...peer(row) }))];
  } finally {
    rmSync(data, { force: true });
  }
}

export async function run({ smoke, peers }) {
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
  const most = Math.max(...threadCounts);
  rows.push(...(await growth(most, { smoke, ...sampling })));
  if (peers) rows.push(...(await torchPeers(most, { smoke, ...sampling })));
  return rows;
}
