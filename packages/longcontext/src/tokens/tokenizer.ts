/** How lengths are counted: any tokenizer, the bytes of UTF-8, or a line fitted to what an endpoint says it received. */
import type { Tokenizer as DataTokenizer } from "@llmeff/data";
import { OptionError } from "@llmeff/native/errors";
import { chunkedCount } from "./chunked-count.js";

export interface Tokenizer {
  /** Names the tokenizer in samples and in the keys of cached sets. */
  readonly id: string;
  /** Ids of the text alone: never a begin or end token, which inside a haystack would spoil every score silently. */
  encode(text: string): ArrayLike<number>;
  decode?(ids: ArrayLike<number>): string;
  count(text: string): number;
  /** `count` of the pieces put together, without putting them together; default: they are. */
  countPieces?(pieces: Iterable<string>): number;
  /** Counting takes microseconds a token rather than nanoseconds, so it pays to count less; default false. */
  readonly slow?: boolean;
}

const encoder = new TextEncoder();

/** Bytes of the text in UTF-8; a lone surrogate counts as U+FFFD, three bytes. */
export function utf8Length(text: string): number {
  return Buffer.byteLength(text, "utf8");
}

/** The same for a text in pieces; no piece ends between the halves of a surrogate pair. */
export function utf8LengthOfPieces(pieces: Iterable<string>): number {
  let bytes = 0;
  for (const piece of pieces) bytes += utf8Length(piece);
  return bytes;
}

/** Tokens of a text, whole or in pieces. */
export function countText(tokenizer: Tokenizer, text: string | Iterable<string>): number {
  if (typeof text === "string") return tokenizer.count(text);
  return tokenizer.countPieces?.(text) ?? tokenizer.count([...text].join(""));
}

/** One token a byte of UTF-8: exact and additive. */
export const utf8Bytes: Tokenizer = {
  id: "utf8-bytes",
  encode: (text) => encoder.encode(text),
  decode: (ids) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(ids)),
  count: utf8Length,
  countPieces: utf8LengthOfPieces,
};

/**
 * A tokenizer of `@llmeff/data` as one that counts. Long texts are counted in pieces, in memory that does not grow with them.
 *
 * @param id - names it in samples, such as `"llama-3"`; two tokenizers of one id are taken for equal
 */
export function fromTokenizer(id: string, tokenizer: DataTokenizer): Tokenizer {
  if (id === "") throw new OptionError("[fromTokenizer] id must not be empty; it names the tokenizer in every sample.");
  const encode = (text: string): Int32Array => tokenizer.encode(text, { addSpecialTokens: false });
  const { count, countPieces } = chunkedCount((text) => encode(text).length);
  return { id, encode, decode: (ids) => tokenizer.decode(ids), count, countPieces, slow: true };
}
