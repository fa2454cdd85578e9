/** Text columns of Parquet files, streamed by row groups; the format is read by hyparquet. */
import { type FileHandle, open } from "node:fs/promises";
import { FormatError } from "@llmeff/native/errors";
import { type AsyncBuffer, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import type { JsonlOptions } from "./corpus.js";
import { readFailure } from "./read-failure.js";

/** One record of a Parquet file. */
export interface ParquetRecord {
  text: string;
  /** Its number in the file, from 0. */
  row: number;
  /** The columns that were read: the text's and the split's. */
  record: Record<string, unknown>;
}

/** Rows read at a time, however large the row groups are. */
const ROWS = 1024;

/**
 * The records of a Parquet file, in order, read 1,024 rows at a time: a row group is never held as a whole. All compressions of the
 * format are read (Snappy, gzip, Zstandard, Brotli, LZ4).
 *
 * @throws {IoError} if the file can't be read
 * @throws {FormatError} if it is no Parquet file, lacks the column, or a text is no string
 *
 * @example
 * for await (const { text } of streamParquet("train-00000.parquet", { field: "content" })) use(text);
 */
export async function* streamParquet(path: string, options: JsonlOptions = {}): AsyncGenerator<ParquetRecord> {
  const { field = "text", split, splitField = "split", signal } = options;
  const handle = await open(path).catch((cause) => {
    throw readFailure("streamParquet", path, cause);
  });
  try {
    const file = await bufferOf(handle);
    const metadata = await parsed(path, () => parquetMetadataAsync(file));
    const columns = split === undefined ? [field] : [field, splitField];
    requireColumns(
      path,
      columns,
      metadata.schema.map(({ name }) => name),
    );
    const count = Number(metadata.num_rows);
    for (let rowStart = 0; rowStart < count; rowStart += ROWS) {
      signal?.throwIfAborted();
      const rowEnd = Math.min(rowStart + ROWS, count);
      const read = { file, metadata, columns, rowStart, rowEnd, compressors };
      const records = await parsed(path, () => parquetReadObjects(read));
      for (const [i, record] of records.entries()) {
        if (split !== undefined && record[splitField] !== split) continue;
        yield { text: requireText(path, rowStart + i, field, record[field]), row: rowStart + i, record };
      }
    }
  } finally {
    await handle.close();
  }
}

async function bufferOf(handle: FileHandle): Promise<AsyncBuffer> {
  const { size } = await handle.stat();
  return {
    byteLength: size,
    async slice(start, end = size) {
      const bytes = new Uint8Array(end - start);
      const { bytesRead } = await handle.read(bytes, 0, bytes.length, start);
      return bytes.buffer.slice(0, bytesRead);
    },
  };
}

/** What the library makes of the bytes; whatever it throws is about the file. */
async function parsed<R>(path: string, read: () => Promise<R>): Promise<R> {
  try {
    return await read();
  } catch (cause) {
    const failure = readFailure("streamParquet", path, cause);
    if (failure !== cause) throw failure;
    throw new FormatError(`[streamParquet] ${path} can't be read as Parquet: ${(cause as Error).message}.`, { cause });
  }
}

function requireColumns(path: string, columns: readonly string[], names: readonly string[]): void {
  const missing = columns.find((column) => !names.includes(column));
  if (missing === undefined) return;
  throw new FormatError(
    `[streamParquet] ${path} has no column "${missing}"; its columns are ${names.slice(1).join(", ")}. Name the one with the text as field.`,
  );
}

function requireText(path: string, row: number, field: string, text: unknown): string {
  if (typeof text === "string") return text;
  throw new FormatError(
    `[streamParquet] ${path}, row ${row}: column "${field}" must hold text; received ${text === null ? "null" : typeof text}.`,
  );
}
