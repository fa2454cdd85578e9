import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createTokenizer } from "./create-tokenizer.js";
import { llama2cTokenizer, loadLlama2cTokenizer } from "./llama2c-tokenizer.js";

const folder = join(import.meta.dirname, "../../../datasets/stories260K");
const bytes = readFileSync(join(folder, "tok512.bin"));
const golden = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8"));

const pieces: { text: string; score: number }[] = [];
for (let at = 4; at < bytes.length; ) {
  const length = bytes.readInt32LE(at + 4);
  pieces.push({ text: bytes.toString("utf8", at + 8, at + 8 + length), score: bytes.readFloatLE(at) });
  at += 8 + length;
}
const idOf = new Map(pieces.map(({ text }, id) => [text, id]));

/** By the words of the format: the neighbours of the highest score are joined, the leftmost first. */
function encodePlainly(text: string): number[] {
  if (text === "") return [1];
  const ids = [" ", ...text].flatMap((c) => idOf.get(c) ?? [...Buffer.from(c)].map((byte) => byte + 3));
  for (;;) {
    let best = { at: -1, id: -1, score: Number.NEGATIVE_INFINITY };
    for (let at = 0; at + 1 < ids.length; at++) {
      const id = idOf.get(pieces[ids[at]!]!.text + pieces[ids[at + 1]!]!.text) ?? -1;
      if (id >= 0 && pieces[id]!.score > best.score) best = { at, id, score: pieces[id]!.score };
    }
    if (best.at < 0) return [1, ...ids];
    ids.splice(best.at, 2, best.id);
  }
}

describe("llama2cTokenizer", () => {
  const tokenizer = llama2cTokenizer(bytes);

  it("encodes as the file's reference does, and decodes its greedy text", () => {
    expect(tokenizer.vocabSize).toBe(512);
    for (const { text, ids } of golden.encode) expect([...tokenizer.encode(text)], text).toEqual(ids);
    expect(tokenizer.decode(golden.greedy_ids)).toBe(golden.greedy_text);
    expect([...tokenizer.encode("")]).toEqual([1]);
  });

  it("reads the special pieces' own text as these tokens, as every tokenizer.json does", () => {
    expect([...tokenizer.encode("\n<s>\n")]).toEqual([1, 1]);
    expect([...tokenizer.encode("<unk>")]).toEqual([1, 0]);
    expect(tokenizer.decode(tokenizer.encode("\n</s>\n"), { skipSpecialTokens: false })).toContain("\n</s>\n");
  });

  it("encodes any other text as joining by scores does, and decodes it again", () => {
    const words = fc.constantFrom(
      "Once",
      "upon",
      "a",
      "time",
      " ",
      "  ",
      "the",
      "Timmy",
      "sss",
      "é",
      "“hi”",
      "\n",
      "😀",
      ",",
      "<s>",
      "ee",
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.array(words).map((parts) => parts.join("")),
          fc.string({ unit: "binary" }),
        ),
        (text) => {
          fc.pre(!pieces.slice(0, 3).some((special) => text.includes(special.text)));
          const ids = [...tokenizer.encode(text)];
          expect(ids).toEqual(encodePlainly(text));
          expect(tokenizer.decode(ids)).toBe(text);
        },
      ),
    );
  });

  it("is rebuilt from its JSON", () => {
    const rebuilt = createTokenizer(JSON.parse(JSON.stringify(tokenizer)));
    expect(rebuilt.encode("Once upon a time")).toEqual(tokenizer.encode("Once upon a time"));
  });

  it("refuses files that are cut or something else", async () => {
    expect(() => llama2cTokenizer(bytes.subarray(0, 3000))).toThrow(/piece \d+ reaches beyond the 3000 bytes/);
    expect(() => llama2cTokenizer(bytes.subarray(0, 4))).toThrow(/expected pieces 3 to 258 to be the bytes/);
    expect(() => llama2cTokenizer(Buffer.from("hello world, this is a text"))).toThrow(/reaches beyond/);
    await expect(loadLlama2cTokenizer(join(folder, "golden.json"))).rejects.toThrow(
      /golden.json: \[llama2cTokenizer\]/,
    );
    await expect(loadLlama2cTokenizer(join(folder, "absent.bin"))).rejects.toThrow(/absent.bin/);
  });
});
