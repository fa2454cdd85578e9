/** How much text tokens are. */
import type { Tokenizer } from "@llmeff/data";

/**
 * Bytes of the tokens after the first, which a causal model predicts: some tokenizers write the first differently at the start of a text, so that it is
 * taken off the whole. Tokens of which the tokenizer knows nothing, such as the ends of documents, are no text.
 */
export function textBytes(tokenizer: Tokenizer, ids: Int32Array): number {
  const known = (some: Int32Array) => some.filter((id) => id < tokenizer.vocabSize);
  // The first byte of a character alone is no text, and would be decoded as three bytes.
  const isByte = tokenizer.toJSON().type === "byte";
  const bytes = (some: Int32Array) => (isByte ? some.length : Buffer.byteLength(tokenizer.decode(some)));
  return bytes(known(ids)) - bytes(known(ids.subarray(0, 1)));
}
