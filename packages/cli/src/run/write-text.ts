/** Text that a model writes, piece by piece. */
import type { Tokenizer } from "@llmeff/data";
import { type GenerateOptions, generate } from "@llmeff/models";
import type { LoadedModel } from "./load-model.js";

/** Text of the first ids that will not change with further ids: a character may need several tokens. */
function settled(tokenizer: Tokenizer, ids: readonly number[]): string {
  return tokenizer.decode(ids).replace(/\uFFFD{1,3}$/u, "");
}

/** Yields the continuation of a prompt as it comes. */
export async function* writeText(
  { model, params }: Pick<LoadedModel, "model" | "params">,
  tokenizer: Tokenizer,
  prompt: string,
  options: GenerateOptions,
): AsyncGenerator<string> {
  const start = Array.from(tokenizer.encode(prompt));
  // Decoded together with the end of the prompt: some tokenizers write a token differently at the start of a text.
  const ids = start.slice(-8);
  let written = tokenizer.decode(ids).length;
  // Rows of the model beyond the tokenizer's tokens pad its table: they have no text.
  const vocabSize = Math.min(tokenizer.vocabSize, model.config.vocabSize);
  for await (const id of generate(model, params, start, { ...options, vocabSize })) {
    ids.push(id);
    const text = settled(tokenizer, ids);
    if (text.length > written) yield text.slice(written);
    written = Math.max(written, text.length);
  }
  const text = tokenizer.decode(ids);
  if (text.length > written) yield text.slice(written);
}
