/** Texts of one model, several at a time by `BatchGenerator`, and one after the other. */
import { BatchGenerator, generate, Transformer } from "@llmeff/models";
import { engine } from "@llmeff/native";
import { childOptions, emit, expect } from "../lib/child.mjs";

const { model: name, size, prompt: promptLength, tokens, batches, rounds } = childOptions();
const { isa, numThreads: threads } = engine().info();
const { layers, d, heads, kvHeads, vocab } = size;
const model = new Transformer({
  vocabSize: vocab,
  dModel: d,
  numLayers: layers,
  numHeads: heads,
  numKvHeads: kvHeads,
  maxSeqLen: 1024,
});
const params = model.init(1);
const options = { maxTokens: tokens, temperature: 0 };
const prompts = Array.from({ length: Math.max(...batches) }, (_, b) =>
  Int32Array.from({ length: promptLength + b }, (_, i) => (37 * i + 11 * b) % vocab),
);

async function all(iterator) {
  const ids = [];
  for await (const token of iterator) ids.push(token.id ?? token);
  return ids;
}

/** Milliseconds of a step: the tokens after the first, which waits for the prompts. */
async function together(batch) {
  const generator = new BatchGenerator(model, params, { maxSequences: batch, prefillChunk: Number.POSITIVE_INFINITY });
  const streams = prompts.slice(0, batch).map((prompt) => generator.generate(prompt, options));
  const first = await Promise.all(streams.map((stream) => stream.next()));
  const [begun, busy] = [performance.now(), performance.eventLoopUtilization()];
  const rest = await Promise.all(streams.map(all));
  const ms = performance.now() - begun;
  const { active } = performance.eventLoopUtilization(busy);
  generator.dispose();
  const ids = rest.map((more, i) => [first[i].value.id, ...more]);
  return { ids, stepMs: ms / (tokens - 1), jsMs: active / (tokens - 1) };
}

const alone = [];
for (const prompt of prompts) alone.push(await all(generate(model, params, prompt, options)));
let oneByOne = 0;
for (const batch of batches) {
  const measured = [];
  for (let round = 0; round < rounds; round++) {
    const { ids, ...times } = await together(batch);
    // Scores of random weights are close: another order of sums may choose another token, but not soon.
    const same = ids.filter((sequence, i) => String(sequence) === String(alone[i])).length;
    expect(same >= batch / 2, `only ${same} of ${batch} texts are those written alone`);
    measured.push(times);
  }
  const { stepMs, jsMs } = measured.reduce((a, b) => (b.stepMs < a.stepMs ? b : a));
  const tokensPerSecond = (1e3 * batch) / stepMs;
  if (batch === 1) oneByOne = tokensPerSecond;
  const overOneByOne = tokensPerSecond / oneByOne;
  const common = { model: name, ...size, parameters: model.parameterCount, prompt: promptLength, tokens };
  emit({ ...common, batch, tokensPerSecond, stepMs, jsMs, overOneByOne, isa, threads });
}
