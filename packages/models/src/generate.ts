import { OptionError, randomUniform, tensor } from "@llmeff/tensor";
import { KvCache } from "./cache.js";
import type { ForwardOptions } from "./forward-options.js";
import type { Parameters } from "./parameters.js";
import { drawToken, readLogits, resolveSampling, type SamplingOptions, tokenProbabilities } from "./sampling.js";
import type { Transformer } from "./transformer.js";

export interface GenerateOptions extends SamplingOptions, Pick<ForwardOptions, "state"> {
  /** Most tokens to draw; fewer when a stop token comes or maxSeqLen is reached. */
  maxTokens: number;
  /** Generation ends after drawing one of these. */
  stopTokens?: readonly number[];
  /** Only ids below it are drawn: the size of the tokenizer's vocabulary where that of the model is padded; default the model's. */
  vocabSize?: number;
  /** Seeds the draws; default 0. */
  seed?: number;
  /** Tokens of the prompt that go through the model at a time; less takes less memory. Default all. */
  prefillChunk?: number;
  signal?: AbortSignal;
}

/** The random stream of token draws; the index of the draw is its position in the stream. */
const drawStream = 0x67656e; // "gen"

/**
 * Draws tokens one at a time, each the next of the prompt and those before it. The model runs on the device of its parameters.
 *
 * @param prompt - at least one token id
 * @throws {OptionError} for an option outside its domain, an empty prompt, one that holds something else than token ids, or one longer than the model's maxSeqLen
 *
 * @example
 * for await (const id of generate(model, params, tokenizer.encode("ROMEO:"), { maxTokens: 200, temperature: 0.8 })) {
 *   process.stdout.write(tokenizer.decode([id]));
 * }
 */
export async function* generate(
  model: Transformer,
  params: Parameters,
  prompt: ArrayLike<number>,
  options: GenerateOptions,
): AsyncGenerator<number> {
  const { maxTokens, stopTokens = [], seed = 0, prefillChunk = Number.POSITIVE_INFINITY, signal, state } = options;
  const sampling = resolveSampling(options);
  if (!(prefillChunk >= 1 && (Number.isInteger(prefillChunk) || prefillChunk === Number.POSITIVE_INFINITY))) {
    throw new OptionError(`[generate] prefillChunk must be a positive integer; received ${prefillChunk}.`);
  }
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 0) {
    throw new OptionError(`[generate] maxTokens must be a non-negative integer; received ${maxTokens}.`);
  }
  if (prompt.length === 0) throw new OptionError("[generate] expected a prompt of at least one token; received none.");
  for (let i = 0; i < prompt.length; i++) {
    const id = prompt[i];
    if (typeof id !== "number" || (id | 0) !== id) {
      throw new OptionError(
        `[generate] prompt[${i}] must be a token id, an integer of 32 bits; received ${String(id)}.`,
      );
    }
  }
  const { maxSeqLen } = model.config;
  const { vocabSize = model.config.vocabSize } = options;
  if (!Number.isSafeInteger(vocabSize) || vocabSize <= 0 || vocabSize > model.config.vocabSize) {
    throw new OptionError(
      `[generate] vocabSize must be an integer in 1..${model.config.vocabSize}; received ${vocabSize}.`,
    );
  }
  if (prompt.length > maxSeqLen) {
    throw new OptionError(`[generate] the prompt has ${prompt.length} tokens; the model's maxSeqLen is ${maxSeqLen}.`);
  }
  const device = Object.values(params)[0]?.device;
  const count = Math.min(maxTokens, maxSeqLen - prompt.length + 1);
  if (count === 0) return;
  using draws = randomUniform({ seed, stream: drawStream }, [count], { dtype: "float64", device: "cpu" });
  const uniforms = await draws.data();
  using cache = new KvCache(model.config, { expected: prompt.length + count - 1 });
  const seen = new Set(Array.from(prompt));
  let next = Int32Array.from(prompt);
  while (next.length > prefillChunk) {
    signal?.throwIfAborted();
    using tokens = tensor(next.subarray(0, prefillChunk), { shape: [1, prefillChunk], device });
    model.hidden(params, tokens, cache).dispose();
    next = next.subarray(prefillChunk);
  }
  for (let i = 0; i < count; i++) {
    signal?.throwIfAborted();
    using tokens = tensor(next, { shape: [1, next.length], device });
    using logits = model.lastLogits(params, tokens, cache, state === undefined ? {} : { state });
    const scores = (await readLogits(logits)).subarray(0, vocabSize);
    const id = drawToken(tokenProbabilities(scores, sampling, seen), uniforms[i]!);
    yield id;
    if (stopTokens.includes(id)) return;
    seen.add(id);
    next = Int32Array.of(id);
  }
}
