import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError, IoError } from "@llmeff/native/errors";
import { parquetWriteBuffer } from "hyparquet-writer";
import { afterAll, describe, expect, it } from "vitest";
import { type ParquetRecord, streamParquet } from "./parquet.js";

const folder = mkdtempSync(join(tmpdir(), "llmeff-parquet-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const texts = Array.from({ length: 2500 }, (_, i) => `Text ${i}: naïve façade 日本 😀`);

function written(name: string, options: object = {}): string {
  const path = join(folder, name);
  const split = texts.map((_, i) => (i % 5 === 0 ? "valid" : "train"));
  const columnData = [
    { name: "content", data: texts, type: "STRING" as const },
    { name: "split", data: split, type: "STRING" as const },
    { name: "number", data: texts.map((_, i) => i), type: "INT32" as const },
    { name: "sparse", data: texts.map((text, i) => (i === 7 ? null : text)), type: "STRING" as const },
  ];
  writeFileSync(path, Buffer.from(parquetWriteBuffer({ columnData, rowGroupSize: 700, ...options })));
  return path;
}

async function collect(records: AsyncIterable<ParquetRecord>): Promise<ParquetRecord[]> {
  const all: ParquetRecord[] = [];
  for await (const record of records) all.push(record);
  return all;
}

describe("streamParquet", () => {
  it.each(["SNAPPY", "UNCOMPRESSED"] as const)("reads every row over groups and pieces, %s", async (codec) => {
    const records = await collect(streamParquet(written(`${codec}.parquet`, { codec }), { field: "content" }));
    expect(records.map(({ text }) => text)).toEqual(texts);
    expect(records.map(({ row }) => row)).toEqual([...texts.keys()]);
  });

  it("keeps the rows of a split", async () => {
    const records = await collect(streamParquet(written("split.parquet"), { field: "content", split: "valid" }));
    expect(records.map(({ row }) => row)).toEqual(Array.from({ length: 500 }, (_, i) => 5 * i));
  });

  it("refuses other files, other columns, and what is no text, naming the row", async () => {
    const path = written("bad.parquet");
    await expect(collect(streamParquet(path))).rejects.toThrow(
      'has no column "text"; its columns are content, split, number, sparse.',
    );
    await expect(collect(streamParquet(path, { field: "number" }))).rejects.toThrow(
      'row 0: column "number" must hold text; received number.',
    );
    await expect(collect(streamParquet(path, { field: "sparse" }))).rejects.toThrow("row 7");
    const other = join(folder, "other.parquet");
    writeFileSync(other, "not parquet at all");
    await expect(collect(streamParquet(other))).rejects.toThrow(FormatError);
    await expect(collect(streamParquet(join(folder, "none.parquet")))).rejects.toThrow(IoError);
  });

  it("stops when asked to", async () => {
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(collect(streamParquet(written("stop.parquet"), { field: "content", signal }))).rejects.toThrow(
      "enough",
    );
  });
});
