/** How much text tokens are. */
import type { Tokenizer } from "@llmeff/data";

/**
 * Bytes of the tokens after the first, which a causal model predicts: some tokenizers write the first differently at the start of a text, so that it is
 * taken off the whole. Tokens of which the tokenizer knows nothing, such as the ends of documents, are no text.
 */
export function textBytes(tokenizer: Tokenizer, ids: Int32Array): number {
  const bytes = (some: Int32Array) =>
    Buffer.byteLength(tokenizer.decode(some.filter((id) => id < tokenizer.vocabSize)));
  return bytes(ids) - bytes(ids.subarray(0, 1));
}
