/** The peers' GPT in our library: tokens a second of training steps with AdamW, and of greedy decoding with a cache. */
import { engine } from "@llmeff/native";
import { AdamW } from "@llmeff/optim";
import { concat, memory, scope, sync, tensor, valueAndGrad } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { batch, full } from "../lib/gpt.mjs";
import { PeerDecoder, peerLoss, peerParameters } from "../lib/peer-gpt.mjs";
import { median } from "../lib/timing.mjs";
import { measureTraining } from "../lib/training.mjs";

const {
  size = full,
  warmup = 2,
  steps = 10,
  prompt = 64,
  decode = 128,
  rounds = 5,
  budgetSeconds = 60,
} = childOptions();
const { isa, numThreads: threads } = engine().info();
const { d, T, B, lr } = size;
const params = peerParameters(size);
const optimizer = new AdamW(params, { learningRate: lr, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1 });

async function step(i) {
  const { tokens, targets } = batch(i, size);
  const loss = scope(() => {
    const data = { tokens: tensor(tokens, { shape: [B, T] }), targets: tensor(targets, { shape: [B, T] }) };
    const { value, grads } = valueAndGrad((p) => peerLoss(p, data, size), params);
    optimizer.step(grads);
    return value;
  });
  const value = await loss.item();
  loss.dispose();
  await sync();
  return value;
}

/** The prompt, and what a test adds to it. */
const promptAnd = (more = []) => {
  const tokens = Int32Array.of(...batch(0, size).tokens.slice(0, prompt), ...more);
  return tensor(tokens, { shape: [1, tokens.length] });
};

/** The tokens that follow the prompt, and the seconds from the first to the last. */
async function generate() {
  const decoder = new PeerDecoder(params, size);
  const chosen = [scope(() => decoder.next(promptAnd()))];
  await sync(); // reading the prompt is not decoding
  const begun = performance.now();
  for (let i = 0; i < decode; i++) chosen.push(decoder.next(chosen.at(-1)));
  const all = scope(() => concat(chosen, 1));
  const tokens = [...(await all.data())];
  const seconds = (performance.now() - begun) / 1e3;
  for (const tensor of [all, ...chosen]) tensor.dispose();
  decoder.dispose();
  return { tokens, seconds };
}

/** The last token again, from all others at once. */
async function withoutCache(tokens) {
  const decoder = new PeerDecoder(params, size);
  const last = scope(() => decoder.next(promptAnd(tokens.slice(0, -1))));
  decoder.dispose();
  const token = await last.item();
  last.dispose();
  return token;
}

async function measureDecoding() {
  const before = memory().tensors;
  const { tokens } = await generate();
  expect((await withoutCache(tokens)) === tokens.at(-1), "the cache changes what is decoded");
  const seconds = [];
  for (let i = 0; i < rounds; i++) {
    const again = await generate();
    expect(String(again.tokens) === String(tokens), "two decodings of one prompt differ");
    seconds.push(again.seconds);
  }
  expect(memory().tensors === before, `decoding leaves ${memory().tensors - before} tensors`);
  const best = Math.min(...seconds);
  emit({
    library: "llmeff",
    task: "decode",
    ...size,
    prompt,
    tokens: decode,
    tokenMs: (1e3 * best) / decode,
    medianTokenMs: (1e3 * median(seconds)) / decode,
    tokensPerSecond: decode / best,
    generated: tokens,
    isa,
    threads,
  });
}

await measureDecoding();
await measureTraining("llmeff", size, 8 * d * d, step, {
  warmup,
  steps,
  budgetSeconds,
  more: async () => ({ task: "train", isa, threads }),
});
