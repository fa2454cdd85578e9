import { writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Workplace } from "../../../test/harness.js";
import { cutDocument, type DividedFiles, documentsOn, readDocuments } from "./source-documents.js";

let place: Workplace;
beforeEach(async () => {
  place = await Workplace.create();
});
afterEach(() => place[Symbol.asyncDispose]());

async function listed<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}

const records = [
  { body: "one", part: "a" },
  { body: " \n", part: "a" },
  { body: "two", part: "b" },
  { body: "three", part: "a" },
];
const jsonl = records.map((record) => JSON.stringify(record)).join("\n");

describe("readDocuments", () => {
  it("reads a text as one document, or divided by a separator", async () => {
    await place.write("text.txt", "a b\n\n\n\nc\n\nd");
    expect(await listed(readDocuments(place.path("text.txt")))).toEqual(["a b\n\n\n\nc\n\nd"]);
    expect(await listed(readDocuments(place.path("text.txt"), { separator: "\n\n" }))).toEqual(["a b", "c", "d"]);
  });

  it("divides a long text as the whole would be, also where a separator lies between two pieces of it", async () => {
    // Pieces end with a line, and are of 64 KiB.
    const text = Array.from({ length: 40_000 }, (_, i) => `${i}${"\n".repeat(i % 7)}`).join("");
    await place.write("long.txt", text);
    for (const separator of ["\n", "\n\n", "\n\n\n\n\n\n", "11\n\n\n1", "\n1", "\n2", "\n3", "99999"]) {
      const expected = text.split(separator).filter((part) => part.trim() !== "");
      expect(await listed(readDocuments(place.path("long.txt"), { separator }))).toEqual(expected);
    }
  });

  it("reads records, packed or not, and leaves out what has no word", async () => {
    await writeFile(place.path("some.jsonl.gz"), gzipSync(jsonl));
    await writeFile(place.path("some.ndjson"), jsonl);
    await writeFile(place.path("some.json"), jsonl);
    await writeFile(place.path("some.json.gz"), gzipSync(jsonl));
    for (const name of ["some.jsonl.gz", "some.ndjson", "some.json", "some.json.gz"])
      expect(await listed(readDocuments(place.path(name), { field: "body" }))).toEqual(["one", "two", "three"]);
  });

  it.each([
    ["an array", JSON.stringify(records, null, 2), "array"],
    ["an array on one line", JSON.stringify(records), "array"],
    ["an object", JSON.stringify({ records }, null, 2), "object"],
  ])("doesn't take %s for a text, but says how it becomes lines", async (_, content, what) => {
    await writeFile(place.path("all.json"), content);
    await expect(listed(readDocuments(place.path("all.json"), { field: "body" }))).rejects.toThrow(
      new RegExp(`all\\.json, line 1.*If the file is one ${what}, write its records as lines first: jq -c`),
    );
  });
});

describe("documentsOn", () => {
  const both = async (files: DividedFiles) => ({
    train: await listed(documentsOn("train", files, undefined)),
    valid: await listed(documentsOn("valid", files, undefined)),
  });

  it("divides by a field where it is told one", async () => {
    await place.write("some.jsonl", jsonl);
    const splits = { field: "part", train: "a", valid: "b" };
    const files = { paths: [place.path("some.jsonl")], field: "body", splits, validFraction: 0.5 };
    expect(await both(files)).toEqual({ train: ["one", "three"], valid: ["two"] });
  });

  it("divides by the text else: every document is on one side, copies on the same", async () => {
    const lines = Array.from({ length: 400 }, (_, i) => `line ${i % 200}`);
    await place.write("lines.txt", lines.join("\n"));
    const { train, valid } = await both({ paths: [place.path("lines.txt")], separator: "\n", validFraction: 0.25 });
    expect([...train, ...valid].sort()).toEqual(lines.sort());
    expect(train.filter((line) => valid.includes(line))).toEqual([]);
    // 50 of 200 expected, with a deviation of √(200 · ¼ · ¾) = 6.1.
    expect(Math.abs(new Set(valid).size - 50)).toBeLessThan(4 * 6.1);
  });
});

describe("cutDocument", () => {
  it("loses no token", () => {
    const ids = Int32Array.from({ length: 7 }, (_, i) => i);
    expect([...cutDocument(ids, 3)].map((part) => [...part])).toEqual([[0, 1, 2], [3, 4, 5], [6]]);
    expect([...cutDocument(ids)]).toEqual([ids]);
    expect([...cutDocument(new Int32Array(0), 3)]).toEqual([]);
  });
});
