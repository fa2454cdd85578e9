import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError, IndexOutOfRangeError, IoError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
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
  }, 20_000);

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
});
