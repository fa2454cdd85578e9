import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { FormatError, IoError, OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { byteTokenizer } from "./byte-tokenizer.js";
import { characterTokenizer } from "./character-tokenizer.js";
import { encodeCorpus, type JsonlOptions, readText, streamJsonl, streamText } from "./corpus.js";

const DATASETS = join(import.meta.dirname, "../../../datasets");
const folder = await mkdtemp(join(tmpdir(), "llmeff-corpus-"));
let files = 0;

async function file(content: string | Uint8Array, extension: string): Promise<string> {
  const path = join(folder, `${files++}.${extension}`);
  await writeFile(path, content);
  return path;
}

async function records(path: string, options?: JsonlOptions): Promise<{ text: string; line: number }[]> {
  const found: { text: string; line: number }[] = [];
  for await (const { text, line } of streamJsonl(path, options)) found.push({ text, line });
  return found;
}

describe("readText", () => {
  it("reads plain and gzip files alike", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.string({ unit: "binary" })), fc.boolean(), async (lines, final) => {
        const text = lines.join("\n").replace(/^\uFEFF+/, "") + (final ? "\n" : "");
        expect(await readText(await file(text, "txt"))).toBe(text);
        expect(await readText(await file(gzipSync(text), "txt.gz"))).toBe(text);
      }),
      { numRuns: 30 },
    );
  });

  it("keeps characters whole over the borders of blocks, and streams in several pieces", async () => {
    const text = `${"žluťoučký kůň 😀".repeat(5000)}\n`.repeat(3);
    const pieces: string[] = [];
    for await (const piece of streamText(await file(gzipSync(text), "txt.gz"))) pieces.push(piece);
    expect(pieces.length).toBeGreaterThan(1);
    expect(pieces.join("")).toBe(text);
  });

  it("drops a byte order mark at the start only", async () => {
    expect(await readText(await file("\uFEFFa\n\uFEFFb", "txt"))).toBe("a\n\uFEFFb");
  });

  it("reads the data sets of the project", async () => {
    const shakespeare = await readText(join(DATASETS, "tiny-shakespeare.txt.gz"));
    expect([shakespeare.length, new Set(shakespeare).size]).toEqual([1_115_394, 65]);
    expect((await readText(join(DATASETS, "names.txt.gz"))).split("\n").length).toBe(32_033);
  });

  it("names a missing file, a folder and a path through a file", async () => {
    const missing = join(folder, "missing.txt");
    await expect(readText(missing)).rejects.toThrow(`[streamText] can't read ${missing}: there is no such file.`);
    await expect(readText(missing)).rejects.toThrow(IoError);
    await mkdir(join(folder, "sub.txt"));
    await expect(readText(join(folder, "sub.txt"))).rejects.toThrow("it is a folder");
    await expect(readText(join(await file("a", "txt"), "b"))).rejects.toThrow(IoError);
  });

  it("refuses truncated and corrupt gzip files, and files that only claim to be gzip", async () => {
    const whole = gzipSync("To be, or not to be\n".repeat(5000));
    const truncated = await file(whole.subarray(0, whole.length - 20), "txt.gz");
    await expect(readText(truncated)).rejects.toThrow(
      `[streamText] ${truncated} is a damaged gzip file (unexpected end`,
    );
    const corrupt = Uint8Array.from(whole);
    corrupt.fill(0xff, 40, 60);
    await expect(readText(await file(corrupt, "txt.gz"))).rejects.toThrow(FormatError);
    await expect(readText(await file("plain", "txt.gz"))).rejects.toThrow(
      "is not a gzip file though its name ends in .gz",
    );
    await expect(readText(await file("", "txt.gz"))).rejects.toThrow(FormatError);
  });

  it("names the line that is not UTF-8", async () => {
    const bytes = Buffer.concat([Buffer.from("one\ntwo\n"), Buffer.of(0x61, 0xff, 0x0a), Buffer.from("four")]);
    const path = await file(bytes, "txt");
    await expect(readText(path)).rejects.toThrow(`[streamText] ${path}, line 3: the bytes are not UTF-8.`);
  });

  it("stops at the signal", async () => {
    const path = await file(gzipSync("line\n".repeat(200_000)), "txt.gz");
    await expect(readText(path, { signal: AbortSignal.abort() })).rejects.toThrow(/abort/i);
    const controller = new AbortController();
    const reading = (async () => {
      for await (const _ of streamText(path, { signal: controller.signal })) controller.abort(new Error("enough"));
    })();
    await expect(reading).rejects.toThrow("enough");
  });
});

describe("streamJsonl", () => {
  const lines = [
    { text: "one", split: "train" },
    { text: "two\nlines", split: "valid" },
    { text: "three", split: "train" },
  ].map((record) => JSON.stringify(record));

  it("yields the records with their lines, empty lines skipped", async () => {
    const path = await file(`${lines[0]}\r\n\n${lines[1]}\n${lines[2]}`, "jsonl");
    expect(await records(path)).toEqual([
      { text: "one", line: 1 },
      { text: "two\nlines", line: 3 },
      { text: "three", line: 4 },
    ]);
  });

  it("filters by split and takes other field names", async () => {
    const path = await file(gzipSync(`${lines.join("\n")}\n`), "jsonl.gz");
    expect((await records(path, { split: "train" })).map(({ text }) => text)).toEqual(["one", "three"]);
    expect(await records(path, { field: "split", split: "two\nlines", splitField: "text" })).toEqual([
      { text: "valid", line: 2 },
    ]);
  });

  it("counts lines over the borders of blocks", async () => {
    const many = Array.from({ length: 5000 }, (_, i) => JSON.stringify({ text: `${i} ${"x".repeat(i % 97)}` }));
    const found = await records(await file(many.join("\n"), "jsonl"));
    expect(found.map(({ line }) => line)).toEqual(many.map((_, i) => i + 1));
    many[4321] = "{broken";
    const path = await file(many.join("\n"), "jsonl");
    await expect(records(path)).rejects.toThrow(`[streamJsonl] ${path}, line 4322 is not JSON`);
  });

  it("names file and line of a record that is no object or lacks the text", async () => {
    const list = await file(`${lines[0]}\n[1, 2]\n`, "jsonl");
    await expect(records(list)).rejects.toThrow(`${list}, line 2: each line must be an object; received [1, 2].`);
    const path = await file(`${lines[0]}\n{"body":"x"}`, "jsonl");
    await expect(records(path)).rejects.toThrow(
      `[streamJsonl] ${path}, line 2: field "text" must be a string; received undefined. The record has body.`,
    );
    await expect(records(path)).rejects.toThrow(FormatError);
  });

  it.each([
    ["[", [{ text: "one" }], "array", "jq -c '.[]' FILE > FILE.jsonl."],
    [
      "{",
      { list: [{ text: "one" }] },
      "object",
      "jq -c '.FIELD[]' FILE > FILE.jsonl, where FIELD is the name of the array",
    ],
  ])("says how a file that begins with %s becomes lines, also behind empty ones", async (_, value, kind, command) => {
    for (const before of ["", "\n", "\r\n  \n", "\uFEFF\n"]) {
      const path = await file(before + JSON.stringify(value, null, 2), "json");
      await expect(records(path)).rejects.toThrow(
        `If the file is one ${kind}, write its records as lines first: ${command}`,
      );
    }
  });

  it("says nothing of the kind of what follows a record", async () => {
    const path = await file(`${lines[0]}\n{\n`, "jsonl");
    await expect(records(path)).rejects.toThrow(/, line 2 is not JSON: (?!.*If the file)/);
  });
});

describe("encodeCorpus", () => {
  it("joins documents with a separator", async () => {
    const ids = await encodeCorpus(byteTokenizer(), ["ab", "", "c"], { separator: 10 });
    expect(ids).toEqual(Int32Array.of(97, 98, 10, 10, 99, 10));
  });

  it("gives the ids of the whole text for its pieces", async () => {
    const path = join(DATASETS, "tiny-shakespeare.txt.gz");
    const text = await readText(path);
    const tokenizer = characterTokenizer(text);
    const [pieces, whole] = [await encodeCorpus(tokenizer, streamText(path)), tokenizer.encode(text)];
    // Compared as bytes: toEqual takes seconds on a million elements.
    expect([pieces.length, Buffer.compare(Buffer.from(pieces.buffer), Buffer.from(whole.buffer))]).toEqual([
      1_115_394, 0,
    ]);
  });

  it("takes JSONL records", async () => {
    const path = await file('{"text":"a"}\n{"text":"b"}\n', "jsonl");
    expect(await encodeCorpus(byteTokenizer(), streamJsonl(path))).toEqual(Int32Array.of(97, 98));
  });

  it("refuses a separator that is no token", async () => {
    await expect(encodeCorpus(byteTokenizer(), [], { separator: 256 })).rejects.toThrow(OptionError);
  });
});
