/**
 * Corpora from files, streamed: plain text and JSON lines, each also as gzip. Whether a file is gzip is read off its first two bytes.
 *
 * Bytes are cut into blocks that end with a line, so every error can name the line, and a character is never torn apart.
 */
import { isUtf8 } from "node:buffer";
import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { FormatError, OptionError } from "@llmeff/native/errors";
import type { JsonObject } from "./batch.js";
import { readFailure } from "./read-failure.js";
import type { Tokenizer } from "./tokenizer.js";

export interface ReadOptions {
  /** Stops reading; the iteration then throws the signal's reason. */
  signal?: AbortSignal;
}

export interface JsonlOptions extends ReadOptions {
  /** Field that holds the text; default `"text"`. */
  field?: string;
  /** Keep only records whose `splitField` has this value. */
  split?: string;
  /** Default `"split"`. */
  splitField?: string;
}

/** One record of a JSON lines file. */
export interface JsonlRecord {
  text: string;
  /** Number of its line, from 1. */
  line: number;
  record: JsonObject;
}

interface LineBlock {
  bytes: Uint8Array;
  /** Number of its first line, from 1. */
  line: number;
}

const NEWLINE = 0x0a;

/**
 * The text of a `.txt` or `.txt.gz` file, in pieces that end with a line; joined they are the file. A byte order mark at the start is dropped.
 *
 * @throws {IoError} if the file can't be read
 * @throws {FormatError} naming the line if it is not UTF-8, or if the gzip data are damaged
 */
export async function* streamText(path: string, options: ReadOptions = {}): AsyncGenerator<string> {
  const decode = lineDecoder("streamText", path);
  for await (const block of lineBlocks("streamText", path, options.signal)) yield decode(block);
}

/** The whole text of a file; see {@link streamText}. */
export async function readText(path: string, options: ReadOptions = {}): Promise<string> {
  const pieces: string[] = [];
  for await (const piece of streamText(path, options)) pieces.push(piece);
  return pieces.join("");
}

/**
 * The records of a `.jsonl` or `.jsonl.gz` file, in order; empty lines are skipped.
 *
 * @throws {IoError} if the file can't be read
 * @throws {FormatError} naming file and line if a line is no JSON object or the text field is missing or no string
 *
 * @example
 * for await (const { text } of streamJsonl("books.jsonl.gz", { split: "train" })) use(text);
 */
export async function* streamJsonl(path: string, options: JsonlOptions = {}): AsyncGenerator<JsonlRecord> {
  const { field = "text", split, splitField = "split", signal } = options;
  const decode = lineDecoder("streamJsonl", path);
  let first = true;
  for await (const block of lineBlocks("streamJsonl", path, signal)) {
    let { line } = block;
    for (const source of decode(block).split("\n")) {
      const record = source.trim() === "" ? undefined : parseRecord(path, line, source, first);
      if (record !== undefined) first = false;
      if (record !== undefined && (split === undefined || record[splitField] === split)) {
        yield { text: requireText(path, line, record, field), line, record };
      }
      line += 1;
    }
  }
}

/**
 * All token ids of a corpus in one array.
 *
 * @param texts - documents, for example from `streamJsonl`, or pieces of one text from `streamText` (only tokenizers that look at one
 *   character at a time give the same ids for pieces as for the whole)
 * @param options.separator - id put after each document; default none
 */
export async function encodeCorpus(
  tokenizer: Tokenizer,
  texts: AsyncIterable<string | JsonlRecord> | Iterable<string | JsonlRecord>,
  options: { separator?: number } = {},
): Promise<Int32Array> {
  const { separator } = options;
  if (separator !== undefined && !(Number.isInteger(separator) && separator >= 0 && separator < tokenizer.vocabSize)) {
    throw new OptionError(
      `[encodeCorpus] separator must be a token id in 0..${tokenizer.vocabSize - 1}; received ${separator}.`,
    );
  }
  let ids = new Int32Array(1024);
  let count = 0;
  for await (const item of texts) {
    const text = typeof item === "string" ? item : item.text;
    const piece = tokenizer.encode(text, { addSpecialTokens: false });
    const needed = count + piece.length + (separator === undefined ? 0 : 1);
    if (needed > ids.length) {
      const larger = new Int32Array(Math.max(needed, 2 * ids.length));
      larger.set(ids.subarray(0, count));
      ids = larger;
    }
    ids.set(piece, count);
    if (separator !== undefined) ids[needed - 1] = separator;
    count = needed;
  }
  return ids.slice(0, count);
}

/** The bytes of a file, unpacked if gzip. */
async function* fileBytes(where: string, path: string, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
  try {
    signal?.throwIfAborted();
    const gzip = await isGzip(where, path);
    const file = createReadStream(path);
    // The callback form reports a failure of either stream by destroying the other; the iteration below throws it.
    const bytes = gzip ? pipeline(file, createGunzip(), () => {}) : file;
    for await (const chunk of bytes) {
      signal?.throwIfAborted();
      yield chunk as Uint8Array;
    }
  } catch (cause) {
    throw readFailure(where, path, cause);
  }
}

async function isGzip(where: string, path: string): Promise<boolean> {
  const file = await open(path);
  try {
    const { bytesRead, buffer } = await file.read(new Uint8Array(2), 0, 2, 0);
    const gzip = bytesRead === 2 && buffer[0] === 0x1f && buffer[1] === 0x8b;
    if (!gzip && path.endsWith(".gz")) {
      throw new FormatError(
        `[${where}] ${path} is not a gzip file though its name ends in .gz: it must begin with 1f 8b. Rename it if it is plain.`,
      );
    }
    return gzip;
  } finally {
    await file.close();
  }
}

async function* lineBlocks(where: string, path: string, signal: AbortSignal | undefined): AsyncGenerator<LineBlock> {
  let line = 1;
  let pending: Uint8Array[] = [];
  for await (const chunk of fileBytes(where, path, signal)) {
    const end = chunk.lastIndexOf(NEWLINE) + 1;
    if (end > 0) {
      const bytes = Buffer.concat([...pending, chunk.subarray(0, end)]);
      yield { bytes, line };
      line += countNewlines(bytes);
      pending = [];
    }
    if (end < chunk.length) pending.push(chunk.subarray(end));
  }
  if (pending.length > 0) yield { bytes: Buffer.concat(pending), line };
}

/** Decodes blocks of one file strictly; the line of the first byte that is not UTF-8 is found only when needed. */
function lineDecoder(where: string, path: string): (block: LineBlock) => string {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return ({ bytes, line }) => {
    if (!isUtf8(bytes)) {
      throw new FormatError(
        `[${where}] ${path}, line ${line + firstBrokenLine(bytes)}: the bytes are not UTF-8. Convert the file to UTF-8 first.`,
      );
    }
    const text = decoder.decode(bytes);
    return line === 1 && text.startsWith("\uFEFF") ? text.slice(1) : text;
  };
}

/** Lines before the first one that is not UTF-8. */
function firstBrokenLine(bytes: Uint8Array): number {
  let line = 0;
  for (let start = 0; start < bytes.length; line++) {
    const end = bytes.indexOf(NEWLINE, start) + 1 || bytes.length;
    if (!isUtf8(bytes.subarray(start, end))) break;
    start = end;
  }
  return line;
}

function countNewlines(bytes: Uint8Array): number {
  let count = 0;
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) count++;
  return count;
}

/** @param first - whether no record came before */
function parseRecord(path: string, line: number, source: string, first: boolean): JsonObject {
  let record: unknown;
  try {
    record = JSON.parse(source);
  } catch (cause) {
    throw new FormatError(
      `[streamJsonl] ${path}, line ${line} is not JSON: ${(cause as Error).message}.${first ? adviceFor(source) : ""}`,
      { cause },
    );
  }
  if (typeof record !== "object" || record === null || Array.isArray(record)) {
    throw new FormatError(
      `[streamJsonl] ${path}, line ${line}: each line must be an object; received ${source.slice(0, 60)}.${first ? adviceFor(source) : ""}`,
    );
  }
  return record as JsonObject;
}

/** What to do if a file that begins like this is one JSON value over many lines. */
function adviceFor(source: string): string {
  const begins = /^\s*([[{])/.exec(source)?.[1];
  if (begins === undefined) return "";
  const [kind, records, hint] =
    begins === "[" ? ["array", ".[]", ""] : ["object", ".FIELD[]", ", where FIELD is the name of the array of records"];
  return ` If the file is one ${kind}, write its records as lines first: jq -c '${records}' FILE > FILE.jsonl${hint}.`;
}

function requireText(path: string, line: number, record: JsonObject, field: string): string {
  const text = record[field];
  if (typeof text !== "string") {
    throw new FormatError(
      `[streamJsonl] ${path}, line ${line}: field "${field}" must be a string; received ${JSON.stringify(text)?.slice(0, 60)}. ` +
        `The record has ${Object.keys(record).join(", ")}.`,
    );
  }
  return text;
}
