import { byteTokenizer, characterTokenizer, type Tokenizer } from "@llmeff/data";
import { describe, expect, it } from "vitest";
import { textBytes } from "./text-bytes.js";

const text = "日本語 naïve";

describe("textBytes", () => {
  it.each<[string, Tokenizer, number]>([
    ["characters", characterTokenizer([text]), 3 * 3 + 1 + 6],
    ["bytes", byteTokenizer(), 3 * 3 + 1 + 6],
  ])("counts the bytes of the %s after the first, and none of what is no text", (_, tokenizer, all) => {
    const ids = tokenizer.encode(text);
    const first = tokenizer.toJSON().type === "byte" ? 1 : 3;
    expect(textBytes(tokenizer, ids)).toBe(all - first);
    const end = tokenizer.vocabSize;
    expect(textBytes(tokenizer, Int32Array.of(...ids, end))).toBe(all - first);
    expect(textBytes(tokenizer, Int32Array.of(end, ...ids))).toBe(all);
  });

  it("counts bytes of characters that are cut", () => {
    const ids = byteTokenizer().encode(text);
    for (let from = 0; from < 5; from++) {
      for (let to = from + 1; to <= ids.length; to++) {
        expect(textBytes(byteTokenizer(), ids.subarray(from, to))).toBe(to - from - 1);
      }
    }
  });
});
