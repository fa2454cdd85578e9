/** Tokenizer files in the styles of well-known models give the ids, pieces and texts that the reference gives. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { describeGoldenFolder } from "../../../test/golden.js";
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

describeGoldenFolder("tokenizers", (path) => {
  describe.each(readdirSync(path))("%s", (style) => {
    const tokenizer = huggingFaceTokenizer(readJson(join(path, style, "tokenizer.json")));
    const expected = readJson(join(path, style, "expected.json")) as Expected;

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
});

describeGoldenFolder("tiny-llama", (path) => {
  it("has a tokenizer with the vocabulary of its model", () => {
    const { vocab_size } = readJson(join(path, "config.json")) as { vocab_size: number };
    expect(huggingFaceTokenizer(readJson(join(path, "tokenizer.json"))).vocabSize).toBe(vocab_size);
  });
});
