/** One token a byte of UTF-8: 256 tokens, any text, no training. */
import { requireIds, type Tokenizer } from "./tokenizer.js";

const VOCAB_SIZE = 256;

/**
 * Ids are the UTF-8 bytes. `decode(encode(text))` is `text` for every well-formed string; lone surrogates, which UTF-8
 * can't hold, and byte sequences that are not UTF-8 become U+FFFD.
 */
export function byteTokenizer(): Tokenizer {
  const encoder = new TextEncoder();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return {
    vocabSize: VOCAB_SIZE,
    encode: (text) => Int32Array.from(encoder.encode(text)),
    decode(ids) {
      requireIds("byteTokenizer.decode", ids, VOCAB_SIZE);
      return decoder.decode(Uint8Array.from(ids));
    },
    idOf(token) {
      const bytes = encoder.encode(token);
      return bytes.length === 1 ? bytes[0] : undefined;
    },
    toJSON: () => ({ type: "byte" }),
  };
}
