/** Tokens a second of texts that one model writes at a time, beside the same texts written one after the other. */
import { measure } from "./lib/child.mjs";
import { cores } from "./lib/machine.mjs";
import { fixed, printTable } from "./lib/report.mjs";

export const title = "Generation, several texts at a time";

const models = {
  "0.3 M": { layers: 5, d: 64, heads: 8, kvHeads: 4, vocab: 512 },
  "6 M": { layers: 6, d: 256, heads: 4, kvHeads: 4, vocab: 4096 },
  "124 M": { layers: 12, d: 768, heads: 12, kvHeads: 12, vocab: 50_304 },
};

export async function run({ smoke }) {
  const rows = [];
  for (const [model, size] of Object.entries(smoke ? { "0.3 M": models["0.3 M"] } : models)) {
    const tokens = smoke ? 4 : size.d > 512 ? 24 : 128;
    const options = { model, size, prompt: 32, tokens, batches: smoke ? [1, 2] : [1, 4, 16], rounds: smoke ? 1 : 5 };
    rows.push(...(await measure("measure/generation.mjs", options, { threads: Math.min(cores, 2) })));
  }
  console.log(`\n${rows[0].threads} threads, ${rows[0].isa}; greedy, after prompts of ${rows[0].prompt} tokens`);
  const heads = ["model", "at a time", "tokens/s", "ms/step", "JavaScript ms/step", "over one by one"];
  const line = (row) => [
    row.model,
    row.batch,
    fixed(row.tokensPerSecond, 0),
    fixed(row.stepMs, 3),
    fixed(row.jsMs, 3),
    fixed(row.overOneByOne, 2),
  ];
  printTable(heads, rows.map(line));
  return rows;
}
