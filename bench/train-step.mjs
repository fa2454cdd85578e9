/**
 * A whole training step: the GPT of `lib/gpt.mjs`. Ours has RMS norm, rotary positions and SwiGLU, whose width is chosen for as many weights
 * as the peers' GELU layers (three matrices d × 688 for two d × 1024: 0.8 % more), so FLOPs agree. They are counted for all as
 * 6 a weight and token, and attention over the whole square; that we skip the masked half shows as speed.
 */
import { measure } from "./lib/child.mjs";
import { full, tiny } from "./lib/gpt.mjs";
import { threadCounts } from "./lib/machine.mjs";
import { measurePeers } from "./lib/peers.mjs";
import { fixed, percent, printTable } from "./lib/report.mjs";

export const title = "GPT training step with AdamW, float32 (fastest step)";

export async function run({ smoke, peers }) {
  const size = smoke ? tiny : full;
  const counts = smoke ? { warmup: 1, steps: 3 } : { warmup: 2, steps: 10 };
  const sampling = smoke ? { samples: 2, sampleMs: 1 } : { samples: 9, sampleMs: 20 };
  const matmulSize = smoke ? 64 : 1024;
  const rows = [];
  for (const threads of threadCounts) {
    const options = { size, ...counts, matmulSize, sampling };
    rows.push(...(await measure("measure/train-step.mjs", options, { threads })));
  }
  if (peers) rows.push(...(await measurePeers("train-step", { size, warmup: 1, steps: 2, budgetSeconds: 60 })));
  const { layers, d, heads, T, B, vocab } = size;
  console.log(
    `\nlayers ${layers}, width ${d}, heads ${heads}, T ${T}, B ${B}, vocabulary ${vocab}; ceiling: our matrix product ${matmulSize}³ in the same process`,
  );
  console.log(
    peers
      ? "peers: the same GPT in libraries that train in Node.js (their default threads)"
      : "peers: not measured (npm run bench -- --with-peers installs and runs jax-js and TensorFlow.js)",
  );
  const table = rows.map((row) => [
    row.library,
    row.threads,
    fixed(row.stepMs),
    fixed(row.medianStepMs),
    row.tokensPerSecond.toFixed(0),
    fixed(row.gflops),
    percent(row.gflops, row.matmulGflops),
    fixed(row.javascriptMs, 2),
    fixed(row.medianJavascriptMs, 2),
    fixed(row.peakMiB, 0),
  ]);
  const header = [
    "library",
    "threads",
    "ms",
    "median ms",
    "tokens/s",
    "GFLOP/s",
    "of matmul",
    "JS ms",
    "median JS ms",
    "peak MiB",
  ];
  printTable(header, table);
  return rows;
}
