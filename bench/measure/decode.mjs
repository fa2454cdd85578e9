/** The prompt and the next tokens of one model on the default device: captured steps, the same uncaptured, drawn ones, and several texts at a time. */
import { BatchGenerator, generate, KvCache, Transformer } from "@llmeff/models";
import { profile, scope, sync, tensor } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { medianMs } from "../lib/gpu.mjs";
import { median } from "../lib/timing.mjs";

const { model: size, prompt: promptLength, tokens, prefill, batches, repeats } = childOptions();
const { layers, d, heads, ffn, vocabulary } = size;
const model = new Transformer({
  vocabSize: vocabulary,
  dModel: d,
  numLayers: layers,
  numHeads: heads,
  ffnDim: ffn,
  maxSeqLen: Math.max(prefill, promptLength + tokens),
  initStd: 0.05,
});
const params = model.init(0, { dtype: "bfloat16" });
const ids = (length, seed = 0) =>
  Int32Array.from({ length }, (_, i) => (Math.imul(i + 7 * seed + 1, 2654435761) >>> 8) % vocabulary);

/** Steps before one is captured and for a while after, which are left out of the steady rate. */
const beginning = Math.min(16, tokens >> 1);

/** Milliseconds a token, of all after the first, and of those that come when steps are replays. */
async function write(options) {
  const [times, written] = [[], []];
  for await (const id of generate(model, params, ids(promptLength), { maxTokens: tokens, ...options })) {
    times.push(performance.now());
    written.push(id);
  }
  const [first, settled, last] = [times[0], times[beginning], times.at(-1)];
  return { all: (last - first) / (tokens - 1), steady: (last - settled) / (tokens - 1 - beginning), written };
}

async function report(name, options) {
  await write(options);
  const runs = [];
  for (let i = 0; i < repeats; i++) runs.push(await write(options));
  const [all, steady] = ["all", "steady"].map((key) => median(runs.map((run) => run[key])));
  emit({ name, value: 1e3 / steady, unit: "tokens/s", ms: steady, withCapture: 1e3 / all });
  return runs[0].written;
}

const written = await report("decode", { temperature: 0 });
const plain = await report("decode, uncaptured", { temperature: 0, captureStep: false });
const alike = written.findIndex((id, i) => id !== plain[i]);
// Sums in another order choose another token where two are close, but not at once.
expect(alike < 0 || alike > 2, `the captured text differs from the uncaptured one at token ${alike}`);
await report("decode, drawn at temperature 0.8", { temperature: 0.8 });

for (const batch of batches) {
  /** Milliseconds a step of all texts: of all after the first, and of those that come when steps are replays. */
  const together = async (captureStep) => {
    const generator = new BatchGenerator(model, params, { maxSequences: batch, prefillChunk: 1e6, captureStep });
    const timesOf = async (stream) => {
      const times = [];
      for await (const _ of stream) times.push(performance.now());
      return times;
    };
    const options = { maxTokens: tokens, temperature: 0 };
    const streams = Array.from({ length: batch }, (_, b) => generator.generate(ids(promptLength, b), options));
    const times = await Promise.all(streams.map(timesOf));
    const last = performance.now();
    generator.dispose();
    const since = (i) => (last - Math.max(...times.map((own) => own[i]))) / (tokens - 1 - i);
    return { all: since(0), steady: since(beginning) };
  };
  for (const [name, captureStep] of [
    [`decode of ${batch} texts`, true],
    [`decode of ${batch} texts, uncaptured`, false],
  ]) {
    await together(captureStep);
    const { all, steady } = await together(captureStep);
    const rate = (ms) => (1e3 * batch) / ms;
    emit({ name, value: rate(steady), unit: "tokens/s", ms: steady, withCapture: rate(all) });
  }
}

const prompt = tensor(ids(prefill), { shape: [1, prefill] });
const read = () =>
  scope(() => {
    const cache = new KvCache(model.config, { expected: prefill });
    const logits = model.lastLogits(params, prompt, cache);
    cache.dispose();
    return logits;
  });
const ms = await medianMs(read, { repeats: 20, warmup: 4 });
const begun = performance.now();
read().dispose();
const queued = performance.now() - begun;
await sync();
const shares = (work) => {
  const { ops } = profile(() => scope(() => void work()));
  return Object.fromEntries(ops.map(({ op, calls, milliseconds }) => [`${op} ×${calls}`, milliseconds]));
};
emit({ name: "prefill", value: (1e3 * prefill) / ms, unit: "tokens/s", ms, jsMs: queued, ops: shares(read) });

const cache = new KvCache(model.config, { expected: promptLength + tokens });
model.lastLogits(params, tensor(ids(promptLength), { shape: [1, promptLength] }), cache).dispose();
const next = { caches: [cache], positions: tensor(Int32Array.of(promptLength)) };
const token = tensor(Int32Array.of(1), { shape: [1, 1] });
const step = () => model.lastLogits(params, token, next);
scope(() => void step());
emit({ name: "one step by operation", ops: shares(step) });
