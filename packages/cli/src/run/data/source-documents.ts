/** The documents of files of several formats. */
import { holdOut, type JsonlOptions, readText, streamJsonl, streamParquet, streamText } from "@llmeff/data";
import { isTextFile } from "../../config/data-schema.js";
import { defined } from "../defined.js";

export interface DocumentOptions extends JsonlOptions {
  /** Divides a text file into documents; default none, the file is one. */
  separator?: string;
}

/** The documents of a file: the records of JSON lines or Parquet, or a text. Empty ones are passed over. */
export async function* readDocuments(path: string, options: DocumentOptions = {}): AsyncGenerator<string> {
  for await (const text of textsOf(path, options)) if (text.trim() !== "") yield text;
}

async function* textsOf(path: string, { separator, ...options }: DocumentOptions): AsyncGenerator<string> {
  if (path.endsWith(".parquet")) {
    for await (const { text } of streamParquet(path, options)) yield text;
  } else if (isTextFile(path)) {
    if (separator === undefined) yield await readText(path, options);
    else yield* divided(streamText(path, options), separator);
  } else {
    for await (const { text } of streamJsonl(path, options)) yield text;
  }
}

/** What `split` of the whole would give, without the whole, which may be longer than a string can be. */
async function* divided(pieces: AsyncIterable<string>, separator: string): AsyncGenerator<string> {
  let document: string[] = [];
  // The end of what was read, with which a separator may begin.
  let rest = "";
  for await (const piece of pieces) {
    const parts = (rest + piece).split(separator);
    const open = parts.pop()!;
    for (const part of parts) {
      yield [...document, part].join("");
      document = [];
    }
    const kept = Math.max(0, open.length - separator.length + 1);
    document.push(open.slice(0, kept));
    rest = open.slice(kept);
  }
  yield [...document, rest].join("");
}

/** Training documents or held-out ones. */
export type Side = "train" | "valid";

export interface DividedFiles {
  paths: readonly string[];
  field?: string | undefined;
  separator?: string | undefined;
  /** Values of a field that decides on which side a document is; default its text does, for a share. */
  splits?: { field?: string | undefined; train: string; valid: string } | undefined;
  validFraction?: number | undefined;
}

/** The documents of a side, in the order of the files. */
export async function* documentsOn(
  side: Side,
  files: DividedFiles,
  signal: AbortSignal | undefined,
): AsyncGenerator<string> {
  const { paths, field, separator, splits, validFraction = 0.01 } = files;
  const chosen = splits && { splitField: splits.field, split: splits[side] };
  const options = defined({ field, separator, signal, ...chosen });
  for (const path of paths) {
    for await (const text of readDocuments(path, options)) {
      if (splits !== undefined || holdOut(text, { valid: validFraction }) === side) yield text;
    }
  }
}

/** The tokens of a document as documents of at most so many. */
export function* cutDocument(ids: Int32Array, maxTokens = Number.POSITIVE_INFINITY): Generator<Int32Array> {
  for (let at = 0; at < ids.length; at += maxTokens) yield ids.subarray(at, at + maxTokens);
}
