/**
 * Hugging Face `tokenizer.json`, read by the library `@huggingface/tokenizers`. This file checks what goes in and out and
 * mends what differs from the reference implementation.
 */
import { isUtf8 } from "node:buffer";
import { readFile } from "node:fs/promises";
import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { FormatError } from "@llmeff/native/errors";
import { type LibraryPreTokenizer, mendPreTokenizers, type PreTokenizerJson } from "./mend-pre-tokenizers.js";
import { readFailure } from "./read-failure.js";
import { requireIds, type Tokenizer } from "./tokenizer.js";

/** A `Tokenizer` that also shows the pieces. */
export interface HuggingFaceTokenizer extends Tokenizer {
  /** The pieces of a text as written in the vocabulary, without the template's tokens. */
  pieces(text: string): string[];
}

interface TokenizerJson {
  model: { type?: string; dropout?: number | null; vocab: Record<string, number> | [string, number][] };
  added_tokens: { id: number; content: string; single_word?: boolean }[];
  pre_tokenizer: PreTokenizerJson | null;
  decoder: DecoderJson | null;
}

interface DecoderJson {
  type: string;
  decoders?: DecoderJson[];
}

/** What we use of the library; its own declarations don't resolve under Node's module rules. */
interface Library {
  pre_tokenizer: LibraryPreTokenizer | null;
  decoder: LibraryDecoder | null;
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[]; tokens: string[] };
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
}

interface LibraryDecoder {
  decoders?: LibraryDecoder[];
  text_decoder?: { decode(bytes: Uint8Array): string };
}

/** The library takes any other type for a guess of its own, so we refuse it. */
const MODEL_TYPES = ["BPE", "Unigram", "WordPiece"];

/** Parts that a file may leave out; the library wants them there. */
const ABSENT_PARTS = { added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };

/**
 * Reads a `tokenizer.json` file.
 *
 * @throws {IoError} if the file can't be read
 * @throws {FormatError} if it is not JSON or not a tokenizer
 */
export async function loadHuggingFaceTokenizer(path: string): Promise<HuggingFaceTokenizer> {
  const where = "loadHuggingFaceTokenizer";
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    throw readFailure(where, path, cause);
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(`[${where}] ${path} is not JSON: ${(cause as Error).message}.`, { cause });
  }
  try {
    return huggingFaceTokenizer(json);
  } catch (cause) {
    throw new FormatError(`[${where}] ${path}: ${(cause as Error).message}`, { cause });
  }
}

/**
 * A tokenizer from the parsed content of a `tokenizer.json`. Its sections `truncation` and `padding` are for batches of one length: texts are neither cut nor padded.
 *
 * @throws {FormatError} if a part is missing or of an unknown type
 */
export function huggingFaceTokenizer(content: unknown): HuggingFaceTokenizer {
  const json = requireTokenizerJson(content);
  const library = openLibrary(json);
  const vocabSize = 1 + largestId(json);

  const encode = (text: string, addSpecialTokens: boolean) =>
    library.encode(text, { add_special_tokens: addSpecialTokens });
  return {
    vocabSize,
    encode(text, { addSpecialTokens = true } = {}) {
      const { ids, tokens } = encode(text, addSpecialTokens);
      const missing = ids.findIndex((id) => !Number.isInteger(id));
      if (missing >= 0) {
        throw new FormatError(
          `[huggingFaceTokenizer.encode] the piece ${JSON.stringify(tokens[missing])} has no id and the vocabulary names no unknown token. The tokenizer.json is damaged.`,
        );
      }
      return Int32Array.from(ids);
    },
    decode(ids, { skipSpecialTokens = true } = {}) {
      requireIds("huggingFaceTokenizer.decode", ids, vocabSize);
      if (ids.length === 0) return "";
      return library.decode(Array.from(ids), {
        skip_special_tokens: skipSpecialTokens,
        clean_up_tokenization_spaces: false,
      });
    },
    pieces: (text) => encode(text, false).tokens,
    idOf: (token) => library.token_to_id(token),
    toJSON: () => ({ type: "hugging-face", tokenizer: json }),
  };
}

function requireTokenizerJson(content: unknown): TokenizerJson {
  const json = { ...ABSENT_PARTS, ...(content as object) } as Partial<TokenizerJson>;
  const vocab = json.model?.vocab;
  if (typeof vocab !== "object" || vocab === null || !Array.isArray(json.added_tokens)) {
    throw new FormatError(
      "[huggingFaceTokenizer] expected the content of a tokenizer.json with model.vocab and a list added_tokens; " +
        `received ${content === null ? "null" : typeof content} with keys ${JSON.stringify(Object.keys(Object(content)))}.`,
    );
  }
  const { type } = json.model!;
  if (type !== undefined && !MODEL_TYPES.includes(type)) {
    throw new FormatError(
      `[huggingFaceTokenizer] model.type must be one of ${MODEL_TYPES.join(", ")}; received ${JSON.stringify(type)}.`,
    );
  }
  const { dropout } = json.model!;
  if (dropout) {
    throw new FormatError(
      `[huggingFaceTokenizer] model.dropout is ${dropout}, by which a text's pieces would be drawn anew each time; that is not supported. Set it to null.`,
    );
  }
  requireVocabulary(json as TokenizerJson);
  const word = json.added_tokens.find(({ single_word }) => single_word);
  if (word !== undefined) {
    throw new FormatError(
      `[huggingFaceTokenizer] the added token ${JSON.stringify(word.content)} has single_word: true, which is not supported; only false is.`,
    );
  }
  return json as TokenizerJson;
}

/** Ids become rows of a table: the library would take any. */
function requireVocabulary({ model, added_tokens }: TokenizerJson): void {
  const added = added_tokens.map((token: Partial<TokenizerJson["added_tokens"][number]> | null) => {
    if (typeof token?.content === "string" && token.content !== "") return [token.content, token.id] as const;
    throw new FormatError(
      `[huggingFaceTokenizer] added_tokens must be objects with id and content; received ${JSON.stringify(token)}.`,
    );
  });
  const pieces = Array.isArray(model.vocab) ? [] : Object.entries(model.vocab);
  for (const [piece, id] of [...pieces, ...added]) {
    if (Number.isInteger(id) && id! >= 0 && id! < 2 ** 31) continue;
    throw new FormatError(
      `[huggingFaceTokenizer] the id of ${JSON.stringify(piece)} must be an integer in 0..2147483647; received ${JSON.stringify(id)}.`,
    );
  }
}

function openLibrary(json: TokenizerJson): Library {
  try {
    const library = new LibraryTokenizer(json, {}) as unknown as Library;
    if (json.pre_tokenizer !== null && library.pre_tokenizer !== null)
      mendPreTokenizers(json.pre_tokenizer, library.pre_tokenizer);
    if (json.decoder !== null && library.decoder !== null) mendByteFallback(json.decoder, library.decoder);
    return library;
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw new FormatError(`[huggingFaceTokenizer] this tokenizer.json can't be used: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function largestId({ model, added_tokens }: TokenizerJson): number {
  let largest = Array.isArray(model.vocab) ? model.vocab.length - 1 : -1;
  if (!Array.isArray(model.vocab)) for (const id of Object.values(model.vocab)) largest = Math.max(largest, id);
  for (const { id } of added_tokens) largest = Math.max(largest, id);
  return largest;
}

/**
 * The library joins `<0xNN>` pieces by a `TextDecoder` that swallows U+FEFF and merges broken bytes into one mark. The reference
 * implementation keeps U+FEFF and writes U+FFFD for each byte of a run that isn't UTF-8.
 */
function mendByteFallback(json: DecoderJson, decoder: LibraryDecoder): void {
  json.decoders?.forEach((part, i) => {
    const inner = decoder.decoders?.[i];
    if (inner !== undefined) mendByteFallback(part, inner);
  });
  if (json.type === "ByteFallback") decoder.text_decoder = { decode: decodeByteRun };
}

function decodeByteRun(bytes: Uint8Array): string {
  return isUtf8(bytes) ? new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes) : "\uFFFD".repeat(bytes.length);
}
