/** Steps of the optimizers of matrices on the weights of a language model, beside PyTorch's Muon. */
import { measure } from "./lib/child.mjs";
import { fixed, printTable } from "./lib/report.mjs";
import { torchLines } from "./lib/torch.mjs";

export const title = "Steps of the optimizers of matrices, float32 (median)";

/** Layers of four d × d matrices and three d × ffn ones, and an embedding that AdamW steps. */
const models = {
  smoke: { layers: 1, d: 40, ffn: 72, words: 50, repeats: 1 },
  cpu: { layers: 4, d: 256, ffn: 688, words: 4096, repeats: 5 },
  cuda: { layers: 12, d: 768, ffn: 2048, words: 50_304, repeats: 5 },
};

export async function run({ smoke }) {
  const device = process.env.LLMEFF_DEVICE?.startsWith("cuda") ? "cuda" : "cpu";
  const model = models[smoke ? "smoke" : device];
  const ours = await measure("measure/matrix-optimizers.mjs", model);
  const peers = (smoke ? undefined : await torchLines("peers/muon_torch.py", { ...model, device })) ?? [];
  const rows = [...ours, ...peers].map((row) => ({ ...row, device, model }));
  console.log(`\n${model.layers} layers of width ${model.d} and ${model.ffn}, ${model.words} words, on ${device}`);
  printTable(
    ["step", "ms", "first ms", "ms until queued", "MiB of state", "MiB at most"],
    rows.map((row) => [
      row.method,
      fixed(row.ms, 2),
      fixed(row.firstMs),
      fixed(row.queuedMs, 2),
      fixed(row.stateMiB),
      fixed(row.peakMiB),
    ]),
  );
  return rows;
}
