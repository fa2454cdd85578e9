import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { byteTokenizer } from "./byte-tokenizer.js";
import { loadHuggingFaceTokenizer } from "./hugging-face-tokenizer.js";
import { loadLlama2cTokenizer } from "./llama2c-tokenizer.js";
import { StreamingDecoder } from "./streaming-decoder.js";
import type { Tokenizer } from "./tokenizer.js";

const root = join(import.meta.dirname, "../../..");
const golden = (name: string) => loadHuggingFaceTokenizer(join(root, "golden", name, "tokenizer.json"));
const tokenizers: Record<string, Tokenizer> = {
  bytes: byteTokenizer(),
  "byte-level pieces": await golden("tokenizers/gpt2-style"),
  "byte-level pieces with special tokens": await golden("tokenizers/llama3-style"),
  "pieces that fall back to bytes": await golden("tokenizers/llama2-style"),
  "pieces of llama2.c": await loadLlama2cTokenizer(join(root, "datasets/stories260K/tok512.bin")),
};

function pieces(decoder: StreamingDecoder, ids: ArrayLike<number>): string[] {
  return [...Array.from(ids, (id) => decoder.push(id)), decoder.end()];
}

/** Words, spaces, and characters of one to four bytes, which can't all be in a vocabulary. */
const text = fc
  .array(
    fc.oneof(
      fc.constantFrom(" the", " a", "Lily", " ", "  ", "\n", "é", "€", "日本", "😀", "\uFFFD"),
      fc.string({ unit: "grapheme", maxLength: 3 }),
    ),
    {
      maxLength: 30,
    },
  )
  .map((parts) => parts.join(""));

/** Tokens of which most are single bytes, and texts that lack some of their tokens. */
function damagedIds(tokenizer: Tokenizer) {
  const all = Array.from({ length: tokenizer.vocabSize }, (_, id) => id);
  const alone = all.filter((id) => tokenizer.decode([id]) === "\uFFFD");
  const lost = fc.tuple(text, fc.array(fc.nat(), { maxLength: 4 })).map(([text, places]) => {
    const ids = [...tokenizer.encode(text)];
    for (const place of places) ids.splice(place % (ids.length + 1), 1);
    return ids;
  });
  const any = fc.array(fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...alone) }, fc.constantFrom(...all)), {
    maxLength: 40,
  });
  return fc.oneof(any, lost);
}

const escaped = (text: string) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

describe.each(Object.entries(tokenizers))("StreamingDecoder of %s", (name, tokenizer) => {
  it("gives the text of all tokens, in pieces of whole characters", () => {
    fc.assert(
      fc.property(text, (text) => {
        const ids = tokenizer.encode(text);
        const given = pieces(new StreamingDecoder(tokenizer), ids);
        expect(given.join("")).toBe(tokenizer.decode(ids));
        // Half a pair of surrogates can't be encoded.
        for (const piece of given) expect(() => encodeURIComponent(piece)).not.toThrow();
        if (!text.includes("\uFFFD")) expect(given.join("")).not.toContain("\uFFFD");
      }),
    );
  });

  it("goes on with a text as if it had been decoded with its beginning", () => {
    fc.assert(
      fc.property(text, text, (prompt, more) => {
        // Of a prompt without a text nobody can tell whether a space at its end is the text's first.
        fc.pre(prompt.trim() !== "");
        const all = tokenizer.encode(prompt + more);
        const cut = tokenizer.encode(prompt).length;
        fc.pre(tokenizer.decode(all.subarray(0, cut)) === tokenizer.decode(tokenizer.encode(prompt)));
        const given = pieces(new StreamingDecoder(tokenizer, all.subarray(0, cut)), all.subarray(cut)).join("");
        expect(tokenizer.decode(all.subarray(0, cut)) + given).toBe(tokenizer.decode(all));
      }),
    );
  });

  it.each(["\uFFFDࠀ", "\uFFFD\uFFFD\uFFFD a", " a\uFFFD\uFFFD😀", "!\uFFFDࠀ"])(
    "takes U+FFFD in a text for a character like any other: %j",
    (text) => {
      const ids = tokenizer.encode(text);
      expect(pieces(new StreamingDecoder(tokenizer), ids).join("")).toBe(tokenizer.decode(ids));
      for (let cut = 1; cut < text.length; cut++) {
        const begun = tokenizer.encode(text.slice(0, cut));
        const all = [...begun, ...tokenizer.encode(text.slice(cut), { addSpecialTokens: false })];
        const given = pieces(new StreamingDecoder(tokenizer, begun), all.slice(begun.length)).join("");
        expect(tokenizer.decode(begun) + given).toBe(tokenizer.decode(all));
      }
    },
  );

  const fallsBack = name.startsWith("pieces");

  it(`gives what decoding all tokens at once gives, whatever their bytes are${fallsBack ? ", but for whole characters in runs of bytes that are no UTF-8" : ""}`, () => {
    fc.assert(
      fc.property(damagedIds(tokenizer), (ids) => {
        const parts = tokenizer.decode(ids).split(/(\uFFFD+)/);
        const most = (marks: string) => (fallsBack ? `[^]{0,${marks.length}}` : marks);
        const expected = parts.map((part, i) => (i % 2 === 0 ? escaped(part) : most(part)));
        expect(pieces(new StreamingDecoder(tokenizer), ids).join("")).toMatch(
          new RegExp(`^${expected.join("")}$`, "u"),
        );
      }),
      { numRuns: 500 },
    );
  });

  it("gives whole words at once", () => {
    const ids = tokenizer.encode("the cat");
    const decoder = new StreamingDecoder(tokenizer);
    expect(Array.from(ids, (id) => decoder.push(id)).join("")).toBe(tokenizer.decode(ids));
    expect(decoder.end()).toBe("");
  });
});

describe("StreamingDecoder", () => {
  const bytes = byteTokenizer();

  it("waits for the last byte of a character", () => {
    const decoder = new StreamingDecoder(bytes);
    expect([0xf0, 0x9f, 0x98, 0x80].map((byte) => decoder.push(byte))).toEqual(["", "", "", "😀"]);
    expect([0x61, 0xe2, 0x82].map((byte) => decoder.push(byte))).toEqual(["a", "", ""]);
    expect(decoder.end()).toBe("\uFFFD");
  });

  it("doesn't wait for ever for bytes that are no text", () => {
    const decoder = new StreamingDecoder(bytes);
    let given = "";
    for (let i = 0; i < 100; i++) {
      given += decoder.push(0x80);
      expect(i + 1 - given.length).toBeLessThan(4);
    }
    expect(given + decoder.push(0x61)).toBe(`${"\uFFFD".repeat(100)}a`);
  });

  it("decodes a bounded number of tokens for each", () => {
    let longest = 0;
    const counting: Tokenizer = {
      ...bytes,
      decode(ids) {
        longest = Math.max(longest, ids.length);
        return bytes.decode(ids);
      },
    };
    const decoder = new StreamingDecoder(counting, bytes.encode("a prompt of some length"));
    for (let i = 0; i < 3000; i++) decoder.push(i % 7 === 0 ? 0x80 : 0x61 + (i % 26));
    for (let i = 0; i < 300; i++) decoder.push(0x80);
    expect(longest).toBeLessThan(32);
  });

  it("leaves special tokens out unless told otherwise", () => {
    const tokenizer = tokenizers["byte-level pieces with special tokens"]!;
    const ids = [tokenizer.idOf("<|begin|>")!, ...tokenizer.encode("The", { addSpecialTokens: false })];
    expect(pieces(new StreamingDecoder(tokenizer), ids).join("")).toBe("The");
    const kept = new StreamingDecoder(tokenizer, [], { skipSpecialTokens: false });
    expect(pieces(kept, ids).join("")).toBe("<|begin|>The");
  });

  it("refuses ids that are no token", () => {
    expect(() => new StreamingDecoder(bytes).push(256)).toThrow(/token ids must be integers in 0\.\.255; received 256/);
  });
});
