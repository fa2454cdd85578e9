import { FormatError, IndexOutOfRangeError, OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { byteTokenizer } from "./byte-tokenizer.js";
import { characterTokenizer, characterTokenizerOf } from "./character-tokenizer.js";
import { createTokenizer } from "./create-tokenizer.js";
import type { TokenizerSpec } from "./tokenizer.js";

describe("byteTokenizer", () => {
  const tokenizer = byteTokenizer();

  it("gives the UTF-8 bytes", () => {
    // é = U+00E9 = c3 a9
    expect(tokenizer.encode("aé\n")).toEqual(Int32Array.of(0x61, 0xc3, 0xa9, 0x0a));
    expect(tokenizer.vocabSize).toBe(256);
    expect([tokenizer.idOf("a"), tokenizer.idOf("é"), tokenizer.idOf("")]).toEqual([97, undefined, undefined]);
  });

  it("decodes what it encoded", () => {
    const property = (text: string) => {
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    };
    fc.assert(fc.property(fc.string({ unit: "binary" }), property));
    property("\uFEFFbyte order mark");
  });

  it("writes U+FFFD for bytes that are not UTF-8", () => {
    expect(tokenizer.decode([0x61, 0xff, 0x62])).toBe("a\uFFFDb");
  });

  it.each([256, -1, 1.5, Number.NaN])("refuses the id %s", (id) => {
    expect(() => tokenizer.decode([97, id])).toThrow(IndexOutOfRangeError);
  });
});

describe("characterTokenizer", () => {
  it("numbers the characters of the corpus by code point", () => {
    const tokenizer = characterTokenizer(["ban", "ana"]);
    expect(tokenizer.vocabSize).toBe(3);
    expect(tokenizer.encode("nab")).toEqual(Int32Array.of(2, 0, 1));
    expect([tokenizer.idOf("n"), tokenizer.idOf("na"), tokenizer.idOf("x")]).toEqual([2, undefined, undefined]);
  });

  it("decodes what it encoded, characters beyond U+FFFF included", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", minLength: 1 }), (text) => {
        const tokenizer = characterTokenizer(text);
        const ids = tokenizer.encode(text);
        expect(ids.length).toBe([...text].length);
        expect(tokenizer.decode(ids)).toBe(text);
      }),
    );
  });

  it("names the unknown character and its place", () => {
    expect(() => characterTokenizer("abc").encode("ab😀c")).toThrow(
      '[characterTokenizer.encode] character "😀" (U+1F600) at index 2 is not among the 3 characters of the vocabulary.',
    );
    expect(() => characterTokenizer("abc").encode("é")).toThrow(OptionError);
  });

  it("refuses an empty corpus, repeated characters and foreign ids", () => {
    expect(() => characterTokenizer("")).toThrow(OptionError);
    expect(() => characterTokenizerOf("aba")).toThrow(FormatError);
    expect(() => characterTokenizerOf("ab").decode([2])).toThrow(IndexOutOfRangeError);
  });
});

describe("createTokenizer", () => {
  it.each([byteTokenizer(), characterTokenizer("zażółć gęślą jaźń 😀")])(
    "rebuilds a tokenizer from its JSON",
    (tokenizer) => {
      const text = "zażć 😀";
      const rebuilt = createTokenizer(JSON.parse(JSON.stringify(tokenizer)) as TokenizerSpec);
      expect(rebuilt.vocabSize).toBe(tokenizer.vocabSize);
      expect(rebuilt.encode(text)).toEqual(tokenizer.encode(text));
    },
  );

  it("refuses an unknown type", () => {
    expect(() => createTokenizer({ type: "words" } as unknown as TokenizerSpec)).toThrow('received "words"');
    expect(() => createTokenizer(undefined as unknown as TokenizerSpec)).toThrow(FormatError);
  });
});
