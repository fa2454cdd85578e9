/** Tokenizer files in the styles of well-known models give the ids, pieces and texts that the reference gives. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { describeGolden, describeGoldenFolder, goldenFolders, goldenPath } from "../../../test/golden.js";
import { huggingFaceTokenizer } from "../src/index.js";

interface Expected {
  vocab_size: number;
  cases: {
    text: string;
    ids: number[];
    ids_no_special: number[];
    tokens: string[];
    decoded: string;
    decoded_keep_special: string;
  }[];
}

const readJson = (path: string): unknown => JSON.parse(readFileSync(path, "utf8"));

const folders = goldenFolders("tokenizer.json", "expected.json");

/** Beside a checkpoint, expected.json is that of the checkpoint. */
const isOfTokenizer = (folder: string) => "cases" in (readJson(join(goldenPath(folder), "expected.json")) as object);

describeGoldenFolder("tokenizers", () => {
  it("has tokenizers", () => {
    expect(folders.filter(isOfTokenizer)).not.toEqual([]);
  });
});

for (const folder of folders.filter(isOfTokenizer)) {
  describeGolden(folder, (path) => {
    const tokenizer = huggingFaceTokenizer(readJson(join(path, "tokenizer.json")));
    const expected = readJson(join(path, "expected.json")) as Expected;

    it("has the vocabulary size, added tokens included", () => {
      expect(tokenizer.vocabSize).toBe(expected.vocab_size);
    });

    it.each(expected.cases.map((golden, number) => ({ number, golden })))("case $number", ({ golden }) => {
      expect([...tokenizer.encode(golden.text)]).toEqual(golden.ids);
      expect([...tokenizer.encode(golden.text, { addSpecialTokens: false })]).toEqual(golden.ids_no_special);
      expect(tokenizer.pieces(golden.text)).toEqual(golden.tokens);
      expect(tokenizer.decode(golden.ids)).toBe(golden.decoded);
      expect(tokenizer.decode(golden.ids, { skipSpecialTokens: false })).toBe(golden.decoded_keep_special);
    });
  });
}

describeGoldenFolder("tiny-llama", (path) => {
  it("has a tokenizer with the vocabulary of its model", () => {
    const { vocab_size } = readJson(join(path, "config.json")) as { vocab_size: number };
    expect(huggingFaceTokenizer(readJson(join(path, "tokenizer.json"))).vocabSize).toBe(vocab_size);
  });
});
