import { existsSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { openTokenShards } from "@llmeff/data";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { sampleDocuments, Workplace } from "./harness.js";

let place: Workplace;
beforeEach(async () => {
  place = await Workplace.create();
  await place.write("en.jsonl", sampleDocuments("en", 50));
});
afterEach(() => place[Symbol.asyncDispose]());

async function documentsOf(folder: string, side: string): Promise<number[][]> {
  const names = (await readdir(place.path(folder))).filter(
    (name) => name.startsWith(`${side}-`) && name.endsWith(".idx"),
  );
  await using shards = await openTokenShards(names.sort().map((name) => place.path(folder, name)));
  const documents: number[][] = [];
  for (let i = 0; i < shards.count; i++) documents.push([...(await shards.document(i))]);
  return documents;
}

const texts = sampleDocuments("en", 50)
  .split("\n")
  .map((line) => JSON.parse(line) as { text: string; part: string });

describe("llmeff tokenize", () => {
  it("writes every document on its side, each with its end, and what a training must know", async () => {
    const argv = [
      "tokenize",
      "en.jsonl",
      "--tokenizer",
      "byte",
      "--out",
      "a/b",
      "--split",
      "kept,held",
      "--split-field",
      "part",
    ];
    const { code, stdout, stderr } = await place.run(argv);
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/^train: 40 documents, [\d.]+k tokens\nvalid: 10 documents, \d+ tokens\n$/);
    for (const [side, part] of [
      ["train", "kept"],
      ["valid", "held"],
    ] as const) {
      const own = texts.filter((one) => one.part === part).map(({ text }) => [...Buffer.from(text), 256]);
      expect(await documentsOf("a/b", side)).toEqual(own);
    }
    const corpus = JSON.parse(await place.read("a/b/corpus.json"));
    expect(corpus).toMatchObject({
      tokenizer: { type: "byte" },
      eos: 256,
      vocabSize: 257,
      documents: { train: 40, valid: 10 },
    });
    const tokens = (await documentsOf("a/b", "train")).flat().length;
    expect(corpus.tokens.train).toBe(tokens);
  });

  it("cuts long documents, divides texts, begins new shards, and ends documents with a token that the tokenizer has", async () => {
    await place.write("text.txt", texts.map(({ text }) => text).join("\n--\n"));
    const learn = ["tokenizer", "text.txt", "--vocab-size", "280", "--special", "<end>", "--out", "bpe.json"];
    expect((await place.run(learn)).code).toBe(0);
    const argv = [
      "tokenize",
      "text.txt",
      "--tokenizer",
      "bpe.json",
      "--eos",
      "<end>",
      "--separator",
      "\n--\n",
      "--out",
      "corpus",
    ];
    const { code, stderr } = await place.run([
      ...argv,
      "--max-document-tokens",
      "7",
      "--max-shard-tokens",
      "100",
      "--valid-fraction",
      "0.2",
    ]);
    expect(code, stderr).toBe(0);
    const { eos, vocabSize } = JSON.parse(await place.read("corpus/corpus.json"));
    expect(eos).toBeLessThan(vocabSize);
    expect(vocabSize).toBe(280);
    const documents = await documentsOf("corpus", "train");
    for (const document of documents) {
      expect(document.length).toBeLessThanOrEqual(8);
      expect(document.indexOf(eos)).toBe(document.length - 1);
    }
    expect(
      (await readdir(place.path("corpus"))).filter((name) => /^train-\d+\.bin$/.test(name)).length,
    ).toBeGreaterThan(2);
  });

  it("leaves nothing behind when it fails or is interrupted, and touches no folder that is there", async () => {
    const argv = ["tokenize", "en.jsonl", "--tokenizer", "byte", "--out", "corpus"];
    const broken = await place.run([...argv, "--field", "txt"]);
    expect(broken).toMatchObject({ code: 1, stderr: expect.stringContaining('field "txt" must be a string') });
    expect((await readdir(place.folder)).sort()).toEqual(["en.jsonl"]);
    const none = await place.run([...argv, "--split", "kept,nobody", "--split-field", "part"]);
    expect(none).toMatchObject({ code: 2, stderr: expect.stringContaining("there is no document for validation") });
    expect(existsSync(place.path("corpus"))).toBe(false);
    await place.write("corpus/mine.txt", "dear");
    expect(await place.run(argv)).toMatchObject({ code: 2, stderr: expect.stringMatching(/corpus is there already/) });
    expect(await place.read("corpus/mine.txt")).toBe("dear");
    const interrupted = await place.run(["tokenize", "en.jsonl", "--tokenizer", "byte", "--out", "later"], {
      interruptAt: "documents",
    });
    expect(interrupted).toMatchObject({ code: 130, stderr: expect.stringContaining("interrupted; nothing was kept") });
    expect((await readdir(place.folder)).sort()).toEqual(["corpus", "en.jsonl"]);
  });

  it("lets one writer at a time work on a folder", async () => {
    const argv = ["tokenize", "en.jsonl", "--tokenizer", "byte", "--out", "corpus", "--valid-fraction", "0.2"];
    const outcomes = await Promise.all([place.run(argv), place.run(argv)]);
    expect(outcomes.map(({ code }) => code).sort()).toEqual([0, 1]);
    expect(outcomes.find(({ code }) => code === 1)!.stderr).toMatch(/corpus is in use by process \d+/);
    const { documents } = JSON.parse(await place.read("corpus/corpus.json"));
    expect(documents.train + documents.valid).toBe(50);
    expect((await readdir(place.folder)).sort()).toEqual(["corpus", "en.jsonl"]);
  });

  it("begins anew where a writer was killed, but removes nothing else that is in the way", async () => {
    const argv = ["tokenize", "en.jsonl", "--tokenizer", "byte", "--out", "corpus", "--valid-fraction", "0.2"];
    const left = [
      "train-00000.bin",
      "train-00000.idx",
      "train-00001.bin",
      "train-00001.idx",
      "train-00002.bin.partial",
    ];
    for (const name of left) await place.write(`corpus.unfinished/${name}`, "old");
    expect(await place.run(argv)).toMatchObject({ code: 0 });
    expect((await readdir(place.path("corpus"))).sort()).toEqual([
      "corpus.json",
      ...["train-00000.bin", "train-00000.idx", "valid-00000.bin", "valid-00000.idx"],
    ]);
    await rm(place.path("corpus"), { recursive: true });
    await place.write("corpus.unfinished/mine.txt", "dear");
    expect(await place.run(argv)).toMatchObject({ code: 2, stderr: expect.stringContaining("is in the way") });
    expect(await place.read("corpus.unfinished/mine.txt")).toBe("dear");
    await rm(place.path("corpus.unfinished"), { recursive: true });
    await place.write("corpus.unfinished", "a file");
    expect(await place.run(argv)).toMatchObject({ code: 2, stderr: expect.stringContaining("is in the way") });
    expect(await place.read("corpus.unfinished")).toBe("a file");
  });

  it("leaves a lock file of another program beside the folder alone", async () => {
    const argv = ["tokenize", "en.jsonl", "--tokenizer", "byte", "--out", "poetry", "--valid-fraction", "0.2"];
    await place.write("poetry.lock", "[[package]]");
    await place.write("poetry.unfinished.lock", "mine");
    expect(await place.run(argv)).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(
        /\[tokenize\] \S+poetry\.unfinished\.lock is in the way: expected a lock of \S+poetry, /,
      ),
    });
    expect(await place.read("poetry.unfinished.lock")).toBe("mine");
    await rm(place.path("poetry.unfinished.lock"));
    expect(await place.run(argv)).toMatchObject({ code: 0 });
    expect(await place.read("poetry.lock")).toBe("[[package]]");
    expect((await readdir(place.folder)).sort()).toEqual(["en.jsonl", "poetry", "poetry.lock"]);
  });

  it.each([
    [["--split", "kept,held"], "--split: text files have no fields"],
    [["--field", "body"], "--field: text files have no fields"],
  ])("refuses %j of texts, which would be passed over", async (options, message) => {
    await place.write("text.txt", "one\n\ntwo");
    for (const corpus of [["text.txt"], ["en.jsonl", "text.txt"]]) {
      const { code, stderr } = await place.run([
        "tokenize",
        ...corpus,
        "--tokenizer",
        "byte",
        "--out",
        "c",
        ...options,
      ]);
      expect(stderr).toContain(message);
      expect(code).toBe(2);
      expect(existsSync(place.path("c"))).toBe(false);
    }
  });

  it.each([
    [["--separator", "."], "--separator: it divides text files; here are none"],
    [["--split-field", "part"], "--split-field: expected --split with two of its values"],
    [["--split", "kept,held", "--valid-fraction", "0.1"], "--valid-fraction: --split decides what is held out"],
    [["--split", "train"], "expected two values, as in train,valid"],
    [["--valid-fraction", "1"], "expected a number between 0 and 1"],
    [["--eos", "<end>"], '--eos: the tokenizer has no token "<end>"'],
  ])("refuses %j", async (options, message) => {
    const { code, stderr } = await place.run(["tokenize", "en.jsonl", "--tokenizer", "byte", "--out", "c", ...options]);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });
});
