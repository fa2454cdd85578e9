/** Published MRCR sets: OpenAI's rows as JSON lines, and the CSV of MRCR v2. */
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream";
import { FormatError, IoError } from "@llmeff/native/errors";
import { parse } from "csv-parse";
import type { Message, Sample } from "../sample.js";
import { type ImportOptions, importedSample } from "./imported-sample.js";
import { jsonRows, textOf } from "./lines.js";

const RESERVE = 4096;

/**
 * OpenAI-MRCR: `prompt` is the JSON text of the messages, `answer` begins with `random_string_to_prepend`.
 *
 * @throws {FormatError} naming the line that doesn't fit
 */
export async function* openAiMrcrSamples(path: string, options: ImportOptions = {}): AsyncGenerator<Sample> {
  for await (const { row, where, index } of jsonRows(path)) {
    const hash = textOf(row, "random_string_to_prepend", where);
    const target = textOf(row, "answer", where);
    if (hash === "" || !target.startsWith(hash)) {
      throw new FormatError(`[import] ${where}: "answer" doesn't begin with "random_string_to_prepend".`);
    }
    const needles = Number(row.n_needles ?? 2);
    const meta = { variant: `mrcr_${needles}`, source: "openai-mrcr", hash };
    const messages = messagesOf(textOf(row, "prompt", where), where);
    yield importedSample(
      { task: "mrcr", index, messages, target, reserve: RESERVE, complexity: needles, meta },
      options,
    );
  }
}

function messagesOf(text: string, where: string): Message[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const roles = ["system", "user", "assistant"];
  const fits = (message: Partial<Message> | null) =>
    roles.includes(message?.role ?? "") && typeof message?.content === "string";
  if (Array.isArray(value) && value.length > 0 && value.every(fits)) {
    return value.map(({ role, content }: Message) => ({ role, content }));
  }
  throw new FormatError(`[import] ${where}: expected "prompt" to be the JSON text of a list of messages.`);
}

/** Which column of a CSV holds what; names differ between releases, so the caller gives them. */
export interface MrcrCsvColumns {
  /** The whole prompt. */
  prompt: string;
  /** The reply, with the hash before it or without. */
  answer: string;
  hash: string;
}

/**
 * MRCR v2 as CSV with a header line.
 *
 * @throws {FormatError} if a column is missing, or a row doesn't fit
 */
export async function* mrcrCsvSamples(
  path: string,
  columns: MrcrCsvColumns,
  options: ImportOptions = {},
): AsyncGenerator<Sample> {
  let index = 0;
  try {
    // A failure to read must reach the parser, which `pipe` would not see to; it comes out of the loop below.
    const parser = parse({ columns: true, bom: true, record_delimiter: ["\r\n", "\n"] });
    const rows = pipeline(createReadStream(path), parser, () => {});
    for await (const row of rows as AsyncIterable<Record<string, string>>) {
      const missing = Object.values(columns).filter((name) => row[name] === undefined);
      if (missing.length > 0) {
        throw new FormatError(
          `[import] ${path} has no column "${missing.join('", "')}". Its columns: ${Object.keys(row).join(", ")}.`,
        );
      }
      const hash = row[columns.hash]!;
      const answer = row[columns.answer]!;
      if (hash === "") throw new FormatError(`[import] ${path}, row ${index + 1}: the hash is empty.`);
      const target = answer.startsWith(hash) ? answer : hash + answer;
      const messages: Message[] = [{ role: "user", content: row[columns.prompt]! }];
      const meta = { source: "mrcr-csv", hash, layout: "flat" };
      yield importedSample({ task: "mrcr", index: index++, messages, target, reserve: RESERVE, meta }, options);
    }
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new IoError(`[import] there is no ${path}. Check the path.`, { cause });
    throw new FormatError(`[import] ${path}: ${message}.`, { cause });
  }
}
