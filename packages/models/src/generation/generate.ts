import type { Parameters } from "../parameters.js";
import type { Transformer } from "../transformer.js";
import { BatchGenerator } from "./batch-generator.js";
import type { GeneratedToken, GenerateOptions } from "./options.js";

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
  for await (const { id } of generateTokens(model, params, prompt, options)) yield id;
}

/** `generate`, with the log-probability of each token and those of the likeliest. */
export async function* generateTokens(
  model: Transformer,
  params: Parameters,
  prompt: ArrayLike<number>,
  { prefillChunk = Number.POSITIVE_INFINITY, state, captureStep, ...options }: GenerateOptions,
): AsyncGenerator<GeneratedToken> {
  const given = state === undefined ? {} : { state };
  await using batch = new BatchGenerator(model, params, { maxSequences: 1, prefillChunk, captureStep, ...given });
  yield* batch.generate(prompt, options);
}
