/** Tokens a second of a language model that writes on a GPU, beside PyTorch with a static cache and CUDA graphs. */
import { measure } from "./lib/child.mjs";
import { promiseLines } from "./lib/promise-lines.mjs";
import { installTorch, torchLines } from "./lib/torch.mjs";

export const title = "Writing on a GPU, token by token (bfloat16, 12 layers)";

const sizes = {
  model: { layers: 12, d: 768, heads: 12, ffn: 2048, vocabulary: 50_304 },
  prompt: 512,
  tokens: 256,
  prefill: 4096,
  batches: [8, 16, 32],
  repeats: 5,
};
const tiny = {
  model: { layers: 2, d: 64, heads: 2, ffn: 128, vocabulary: 256 },
  prompt: 8,
  tokens: 24,
  prefill: 64,
  batches: [2],
  repeats: 1,
};

export async function run({ smoke }) {
  const { rows, report, leaveOut, begin } = promiseLines();
  begin();
  installTorch();
  const options = smoke ? tiny : sizes;
  const { layers, d, heads, ffn, vocabulary } = options.model;
  const lines = await measure("measure/decode.mjs", options, { device: "cuda" });
  const peers = await torchLines("peers/decode_torch.py", options);
  if (peers === undefined) leaveOut("PyTorch", "no Python with it was found; LLMEFF_PYTHON names one");
  const shape = `${layers} layers, d ${d}, ${heads} heads, FFN ${ffn}, vocabulary ${vocabulary}`;
  const bars = { decode: 1.5, prefill: 0.95 };
  for (const { name, value, unit, ...more } of lines) {
    if (value === undefined) continue;
    const length =
      name === "prefill" ? `prompt ${options.prefill}` : `prompt ${options.prompt}, ${options.tokens} tokens`;
    const same = (peers ?? []).filter((peer) => peer.name === name);
    const best = same.reduce((a, b) => (a === undefined || b.value > a.value ? b : a), undefined);
    const peer = best && {
      peer: `PyTorch ${best.peer ?? "compiled"}`,
      peerValue: best.value,
      ratio: value / best.value,
    };
    report({ name, shape: `${shape}; ${length}`, value, unit, bar: best && bars[name], ...peer, ...more });
  }
  return rows;
}
