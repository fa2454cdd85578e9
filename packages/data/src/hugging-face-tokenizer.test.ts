import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError, IndexOutOfRangeError, IoError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { byteCharacters } from "./byte-level.js";
import { createTokenizer } from "./create-tokenizer.js";
import { type HuggingFaceTokenizer, huggingFaceTokenizer, loadHuggingFaceTokenizer } from "./hugging-face-tokenizer.js";

/** The project's tokenizers, as examples; `test/tokenizers.golden.test.ts` holds them against what is expected of them. */
const GOLDEN = join(import.meta.dirname, "../../../golden");

function load(name: string): Promise<HuggingFaceTokenizer> {
  return loadHuggingFaceTokenizer(join(GOLDEN, name, "tokenizer.json"));
}

describe("huggingFaceTokenizer", () => {
  it.each(["tokenizers/gpt2-style", "tokenizers/llama3-style", "tiny-llama"])(
    "%s decodes what it encoded",
    async (name) => {
      const tokenizer = await load(name);
      fc.assert(
        fc.property(fc.string({ unit: "binary" }), (text) => {
          const ids = tokenizer.encode(text, { addSpecialTokens: false });
          expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(text);
        }),
      );
    },
  );

  it("keeps U+FEFF and marks every broken byte when pieces fall back to bytes", async () => {
    const tokenizer = await load("tokenizers/llama2-style");
    expect(tokenizer.decode(tokenizer.encode("a\uFEFFb"))).toBe("a\uFEFFb");
    const broken = ["<0xE2>", "<0x82>"].map((piece) => tokenizer.idOf(piece)!);
    expect(tokenizer.decode(broken)).toBe("\uFFFD\uFFFD");
  });

  it("encodes a million equal letters in linear time", async () => {
    const tokenizer = await load("tokenizers/gpt2-style");
    const text = "a".repeat(1_000_000);
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  });

  it("is rebuilt from its JSON", async () => {
    const tokenizer = await load("tokenizers/llama3-style");
    const rebuilt = createTokenizer(JSON.parse(JSON.stringify(tokenizer)));
    expect(rebuilt.encode("The large model")).toEqual(tokenizer.encode("The large model"));
    expect(rebuilt.idOf("<|begin|>")).toBe(340);
  });

  it("accepts a file without the optional parts", () => {
    const tokenizer = huggingFaceTokenizer({ model: { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: ["a b"] } });
    expect(tokenizer.encode("aba")).toEqual(Int32Array.of(2, 0));
    expect(tokenizer.vocabSize).toBe(3);
  });

  it("refuses foreign ids, and content that is no tokenizer", async () => {
    const tokenizer = await load("tiny-llama");
    expect(() => tokenizer.decode([tokenizer.vocabSize])).toThrow(IndexOutOfRangeError);
    for (const content of [null, 3, {}, { model: null }, { model: { vocab: {} }, added_tokens: 5 }]) {
      expect(() => huggingFaceTokenizer(content)).toThrow(FormatError);
    }
    expect(() => huggingFaceTokenizer({ model: { type: "Magic", vocab: {}, merges: [] } })).toThrow(FormatError);
  });

  it("names the file that is missing or no JSON", async () => {
    const path = join(await mkdtemp(join(tmpdir(), "llmeff-data-")), "tokenizer.json");
    await expect(loadHuggingFaceTokenizer(path)).rejects.toThrow(IoError);
    await writeFile(path, "{ not json");
    await expect(loadHuggingFaceTokenizer(path)).rejects.toThrow(`[loadHuggingFaceTokenizer] ${path} is not JSON`);
    await writeFile(path, "{}");
    await expect(loadHuggingFaceTokenizer(path)).rejects.toThrow(path);
  });

  /** The pieces that a pre-tokenizer makes of a text, by a model that joins nothing and knows single characters only. */
  function words(pre_tokenizer: object, text: string): string[] {
    const characters = [...new Set([...text, "▁"])];
    // Whole words are in the vocabulary, and taken as they are: what comes out is what was put in.
    const pieces = new Set(characters);
    for (let from = 0; from < text.length; from++)
      for (let to = from + 1; to <= text.length; to++) {
        pieces.add(text.slice(from, to));
        pieces.add(text.slice(from, to).replaceAll(" ", "▁"));
        pieces.add(`▁${text.slice(from, to)}`);
      }
    const vocab = Object.fromEntries([...pieces].map((piece, id) => [piece, id]));
    const model = { type: "BPE", vocab, merges: [], ignore_merges: true };
    return huggingFaceTokenizer({ model, pre_tokenizer }).pieces(text);
  }

  it.each([
    [
      { type: "Split", pattern: { String: "-" }, behavior: "MergedWithPrevious", invert: false },
      "a--b",
      ["a-", "-", "b"],
    ],
    [{ type: "Split", pattern: { Regex: "\\d+" }, behavior: "Contiguous", invert: false }, "a12", ["a", "12"]],
    [{ type: "Split", pattern: { Regex: "\\d+" }, behavior: "Isolated", invert: true }, "a12b", ["a", "12", "b"]],
    [{ type: "Split", pattern: { Regex: "\\d+" }, behavior: "Removed", invert: true }, "a12b", ["12"]],
    [{ type: "Punctuation", behavior: "Isolated" }, "a?!b", ["a", "?", "!", "b"]],
    [{ type: "Punctuation" }, "a?!", ["a", "?", "!"]],
    [{ type: "Punctuation", behavior: "Contiguous" }, "a?!b", ["a", "?!", "b"]],
    [{ type: "Digits", individual_digits: true }, "a12³", ["a", "1", "2", "³"]],
    [{ type: "Digits", individual_digits: false }, "a12b", ["a", "12", "b"]],
    [{ type: "Whitespace" }, "häh, ja", ["häh", ",", "ja"]],
    [{ type: "WhitespaceSplit" }, "a\u0085b\uFEFFc d", ["a", "b\uFEFFc", "d"]],
    [{ type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true }, "a b", ["▁a", "▁b"]],
    [{ type: "Metaspace", replacement: "▁", prepend_scheme: "never", split: false }, "a b", ["a▁b"]],
    [{ type: "Metaspace", replacement: "▁", add_prefix_space: false }, "a b", ["a", "▁b"]],
    [
      { type: "Sequence", pretokenizers: [{ type: "WhitespaceSplit" }, { type: "Digits", individual_digits: true }] },
      "a1 b",
      ["a", "1", "b"],
    ],
  ])("splits by %o", (pre_tokenizer, text, expected) => {
    expect(words(pre_tokenizer, text)).toEqual(expected);
  });

  it("splits byte-level words at Unicode's spaces, which aren't JavaScript's", () => {
    const pre_tokenizer = { type: "ByteLevel", add_prefix_space: false, use_regex: true };
    const characters = [..."x\uFEFF!y\u0085"].flatMap((c) => [...Buffer.from(c)]).map((byte) => byteCharacters[byte]!);
    const pieces = new Set(characters.flatMap((_, i) => characters.map((_, j) => characters.slice(i, j + 1).join(""))));
    const vocab = Object.fromEntries([...pieces, "Ġ", "ĠÂħ"].filter((p) => p !== "").map((piece, id) => [piece, id]));
    const model = { type: "BPE", vocab, merges: [], ignore_merges: true };
    const words = (text: string) => huggingFaceTokenizer({ model, pre_tokenizer }).pieces(text);
    // U+FEFF is no space and joins the sign behind it; U+0085 is one, and of several the last is not the next word's.
    expect(words("x\uFEFF!y")).toEqual(["x", "ï»¿!", "y"]);
    expect(words(" \u0085x")).toEqual(["Ġ", "Âħ", "x"]);
  });

  it("takes a whole piece of the vocabulary where merges are ignored, and builds it where they aren't", () => {
    const vocab = { a: 0, b: 1, c: 2, ab: 3, abc: 4 };
    const model = (ignore_merges: boolean) => ({ type: "BPE", vocab, merges: [["a", "b"]], ignore_merges });
    expect([...huggingFaceTokenizer({ model: model(true) }).encode("abc")]).toEqual([4]);
    expect([...huggingFaceTokenizer({ model: model(false) }).encode("abc")]).toEqual([3, 2]);
  });

  it("names parts that it doesn't have", () => {
    const model = { type: "BPE", vocab: { a: 0 }, merges: [] };
    const cases: [object, RegExp][] = [
      [
        { pre_tokenizer: { type: "Split", pattern: { String: "a" }, behavior: "Halved" } },
        /behavior of Split must be one of.*"Halved"/,
      ],
      [{ added_tokens: [null] }, /added_tokens must be objects with id and content; received null/],
      [{ added_tokens: [{ content: "<x>" }] }, /the id of "<x>" must be an integer/],
      ...[-1, 0.5, 2 ** 31, "1"].map((id): [object, RegExp] => [
        { model: { ...model, vocab: { a: 0, b: id } } },
        /the id of "b" must be an integer in 0\.\.2147483647; received/,
      ]),
      [{ pre_tokenizer: { type: "Shredder" } }, /Shredder/],
      [{ normalizer: { type: "Shout" } }, /Shout/],
      [{ decoder: { type: "Guess" } }, /Guess/],
      [
        { added_tokens: [{ id: 1, content: "<x>", single_word: true }] },
        /"<x>" has single_word: true, which is not supported/,
      ],
      [{ model: { ...model, dropout: 0.1 } }, /model.dropout is 0.1, .* Set it to null/],
    ];
    for (const [part, message] of cases) expect(() => huggingFaceTokenizer({ model, ...part })).toThrow(message);
  });
});
