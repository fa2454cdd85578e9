/**
 * The tokenizer files of llama2.c: after the length of the longest piece, for every piece its score (float32), its length (int32) and its bytes,
 * little-endian. Pieces 0, 1 and 2 are unknown, begin and end, 3 to 258 the bytes as `<0xNN>`.
 *
 * A text is a space and its characters, of which the neighbours that together are the piece of the highest score are joined, again and again. That is
 * byte-pair encoding with the pieces' scores for ranks, so that the file becomes a tokenizer.json. One thing comes with that format: the text of a
 * special piece (`"<unk>"`, `"\n<s>\n"`, `"\n</s>\n"`) is read as that token, where llama2.c would spell it out.
 */
import { readFile } from "node:fs/promises";
import { FormatError } from "@llmeff/native/errors";
import { type HuggingFaceTokenizer, huggingFaceTokenizer } from "./hugging-face-tokenizer.js";
import { readFailure } from "./read-failure.js";

interface Piece {
  text: string;
  score: number;
}

const [unknown, begin, end, firstMerged] = [0, 1, 2, 259];

function parsePieces(bytes: Uint8Array): Piece[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const pieces: Piece[] = [];
  for (let at = 4; at < bytes.length; ) {
    const length = at + 8 <= bytes.length ? view.getInt32(at + 4, true) : -1;
    if (length < 0 || at + 8 + length > bytes.length) {
      throw new FormatError(
        `[llama2cTokenizer] piece ${pieces.length} reaches beyond the ${bytes.length} bytes of the file. It is truncated or no tokenizer of llama2.c.`,
      );
    }
    const text = bytes.subarray(at + 8, at + 8 + length);
    try {
      pieces.push({ text: decoder.decode(text), score: view.getFloat32(at, true) });
    } catch (cause) {
      throw new FormatError(`[llama2cTokenizer] piece ${pieces.length} is not UTF-8.`, { cause });
    }
    at += 8 + length;
  }
  const isByte = (id: number) => pieces[id]?.text === `<0x${(id - 3).toString(16).toUpperCase().padStart(2, "0")}>`;
  if (!isByte(3) || !isByte(firstMerged - 1)) {
    throw new FormatError(
      `[llama2cTokenizer] expected pieces 3 to 258 to be the bytes <0x00> to <0xFF>; of ${pieces.length} pieces the first is ${JSON.stringify(pieces[3]?.text)}.`,
    );
  }
  return pieces;
}

/** Every way to join two pieces to a third, the pieces of the highest scores first. */
function mergesOf(pieces: readonly Piece[], vocab: ReadonlyMap<string, number>): [string, string][] {
  const joined = pieces.slice(firstMerged).filter(({ text }) => [...text].length > 1);
  joined.sort((a, b) => b.score - a.score);
  return joined.flatMap(({ text }) => {
    const characters = [...text];
    const cuts = characters
      .slice(1)
      .map((_, i) => [characters.slice(0, i + 1).join(""), characters.slice(i + 1).join("")]);
    return cuts.filter((parts) => parts.every((part) => vocab.has(part))) as [string, string][];
  });
}

/**
 * A tokenizer from the content of a llama2.c file; `toJSON` and `llmeff convert` give it as a tokenizer.json.
 *
 * @throws {FormatError} if it is truncated or something else
 */
export function llama2cTokenizer(bytes: Uint8Array): HuggingFaceTokenizer {
  const pieces = parsePieces(bytes);
  // The first of equal pieces counts.
  const vocab = new Map(pieces.map(({ text }, id) => [text, id] as const).reverse());
  const special = [unknown, begin, end].map((id) => ({
    id,
    content: pieces[id]!.text,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const beginToken = pieces[begin]!.text;
  const template = (sequence: string, type_id: number) => [
    { SpecialToken: { id: beginToken, type_id } },
    { Sequence: { id: sequence, type_id } },
  ];
  return huggingFaceTokenizer({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special,
    normalizer: { type: "Prepend", prepend: " " },
    pre_tokenizer: null,
    post_processor: {
      type: "TemplateProcessing",
      single: template("A", 0),
      pair: [...template("A", 0), ...template("B", 1)],
      special_tokens: { [beginToken]: { id: beginToken, ids: [begin], tokens: [beginToken] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [{ type: "ByteFallback" }, { type: "Fuse" }, { type: "Strip", content: " ", start: 1, stop: 0 }],
    },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: pieces[unknown]!.text,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries([...vocab].reverse()),
      merges: mergesOf(pieces, vocab),
    },
  });
}

/** Reads a tokenizer file of llama2.c. @throws {IoError} if it can't be read; {@link FormatError} if it is something else */
export async function loadLlama2cTokenizer(path: string): Promise<HuggingFaceTokenizer> {
  const where = "loadLlama2cTokenizer";
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw readFailure(where, path, cause);
  });
  try {
    return llama2cTokenizer(bytes);
  } catch (cause) {
    throw new FormatError(`[${where}] ${path}: ${(cause as Error).message}`, { cause });
  }
}
