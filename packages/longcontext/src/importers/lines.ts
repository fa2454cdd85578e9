/** JSON lines of other programs. */
import { FormatError } from "@llmeff/native/errors";
import { fileLines } from "../file-lines.js";

export type Row = Readonly<Record<string, unknown>>;

export interface NumberedRow {
  row: Row;
  /** `file, line 3`, for messages. */
  where: string;
  /** From 0. */
  index: number;
}

/** @throws {FormatError} at a line that is no JSON object */
export async function* jsonRows(path: string): AsyncGenerator<NumberedRow> {
  let line = 0;
  let index = 0;
  for await (const text of fileLines(path)) {
    line++;
    if (text.trim() === "") continue;
    const where = `${path}, line ${line}`;
    let row: unknown;
    try {
      row = JSON.parse(text);
    } catch (cause) {
      throw new FormatError(`[import] ${where}: expected a JSON object; ${(cause as Error).message}.`, { cause });
    }
    if (typeof row !== "object" || row === null || Array.isArray(row)) {
      throw new FormatError(`[import] ${where}: expected a JSON object; received ${text.slice(0, 60)}.`);
    }
    yield { row: row as Row, where, index: index++ };
  }
}

export function textOf(row: Row, name: string, where: string): string {
  const value = row[name];
  if (typeof value === "string") return value;
  throw new FormatError(
    `[import] ${where}: expected a text "${name}"; received ${JSON.stringify(value) ?? "nothing"}. Is it the right format?`,
  );
}

export function textsOf(row: Row, name: string, where: string): string[] {
  const value = row[name];
  if (Array.isArray(value) && value.length > 0) return value.map(String);
  throw new FormatError(
    `[import] ${where}: expected a list "${name}"; received ${JSON.stringify(value) ?? "nothing"}. Is it the right format?`,
  );
}
