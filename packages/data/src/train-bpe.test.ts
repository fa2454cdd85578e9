import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { byteTokenizer } from "./byte-tokenizer.js";
import { readText } from "./corpus.js";
import { huggingFaceTokenizer } from "./hugging-face-tokenizer.js";
import { tokenizerJson } from "./tokenizer-json.js";
import { trainBpe } from "./train-bpe.js";

const shakespeare = join(import.meta.dirname, "../../../datasets/tiny-shakespeare.txt.gz");

/** The merges by the rule alone: count all pairs of all words anew, merge the best everywhere, again and again. */
function trainPlainly(texts: readonly string[], vocabSize: number, minFrequency: number): string[] {
  const rule = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;
  const words = texts.flatMap((text) => text.match(rule) ?? []).map((word) => [...Buffer.from(word)]);
  const pieces = Array.from({ length: 256 }, (_, byte) => Buffer.of(byte).toString("latin1"));
  while (pieces.length < vocabSize) {
    const counts = new Map<string, number>();
    for (const ids of words) {
      for (let i = 0; i + 1 < ids.length; i++) {
        const key = `${ids[i]} ${ids[i + 1]}`;
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
    }
    const ranked = [...counts]
      .map(([key, count]) => ({ pair: key.split(" ").map(Number) as [number, number], count }))
      .filter(({ pair: [a, b], count }) => count >= minFrequency && !pieces.includes(pieces[a]! + pieces[b]!))
      .sort((x, y) => y.count - x.count || x.pair[0] - y.pair[0] || x.pair[1] - y.pair[1]);
    if (ranked.length === 0) break;
    const [a, b] = ranked[0]!.pair;
    const token = pieces.push(pieces[a]! + pieces[b]!) - 1;
    for (const ids of words) {
      for (let i = 0; i + 1 < ids.length; i++) if (ids[i] === a && ids[i + 1] === b) ids.splice(i, 2, token);
    }
  }
  return pieces.slice(256);
}

/** The learnt pieces as their bytes. */
function learnt(tokenizer: Awaited<ReturnType<typeof trainBpe>>, vocabSize = tokenizer.vocabSize): string[] {
  const { model } = (tokenizer.toJSON() as unknown as { tokenizer: { model: { vocab: Record<string, number> } } })
    .tokenizer;
  const byId = Object.entries(model.vocab).sort(([, a], [, b]) => a - b);
  const byteOf = new Map(byId.slice(0, 256).map(([piece], byte) => [piece, byte]));
  return byId
    .slice(256, vocabSize)
    .map(([piece]) => Buffer.from([...piece].map((c) => byteOf.get(c)!)).toString("latin1"));
}

describe("trainBpe", () => {
  it("merges the most frequent pair first, of equal ones that of the smaller ids", async () => {
    // " ab" five times, "ab" once: (a, b) six times; then (" ", ab) five times; "cd" and "ce" twice each, (c, d) before (c, e).
    const tokenizer = await trainBpe(["ab ab ab ab ab ab", "cd\nce\ncd\nce"], { vocabSize: 260 });
    expect(learnt(tokenizer)).toEqual(["ab", " ab", "cd", "ce"]);
    expect(tokenizer.pieces("ab ab cdx")).toEqual(["ab", "Ġab", "Ġ", "cd", "x"]);
  });

  it("learns what counting all pairs anew after every merge does", async () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b", "c", " ", "'s", "ä", "1", "\n"), maxLength: 60 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(letters, { maxLength: 6 }),
        fc.integer({ min: 1, max: 3 }),
        async (texts, minFrequency) => {
          const tokenizer = await trainBpe(texts, { vocabSize: 290, minFrequency });
          expect(learnt(tokenizer)).toEqual(trainPlainly(texts, 290, minFrequency));
        },
      ),
    );
  });

  it("gives the same file for the same texts in any order, and one that our loader reads", async () => {
    const text = (await readText(shakespeare)).slice(0, 100_000);
    const parts = text.split("\n\n");
    const options = { vocabSize: 600, specialTokens: ["<|end|>"] };
    const tokenizer = await trainBpe(parts, options);
    const json = JSON.stringify(tokenizerJson(tokenizer));
    expect(JSON.stringify(tokenizerJson(await trainBpe(parts.toReversed(), options)))).toBe(json);
    const loaded = huggingFaceTokenizer(JSON.parse(json));
    expect(loaded.vocabSize).toBe(600);
    expect(loaded.idOf("<|end|>")).toBe(599);
    const ids = loaded.encode(text);
    expect(loaded.decode(ids)).toBe(text);
    expect(ids.length).toBeLessThan(text.length / 2);
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (any) => {
        expect(loaded.decode(loaded.encode(any), { skipSpecialTokens: false })).toBe(any);
      }),
    );
  });

  it("learns nothing of special tokens and across them", async () => {
    const tokenizer = await trainBpe(["x<|end|>y".repeat(20)], { vocabSize: 300, specialTokens: ["<|end|>"] });
    expect(learnt(tokenizer, tokenizer.vocabSize - 1)).toEqual(["yx"]);
    expect([...tokenizer.encode("yx<|end|>")]).toEqual([256, 257]);
    expect(tokenizer.decode([256, 257])).toBe("yx");
  });

  it("counts words between the special tokens that encoding splits out, of several the longest", async () => {
    const text = "<e>xyz ".repeat(3);
    const tokenizer = await trainBpe([text], { vocabSize: 300, specialTokens: ["<e>", "<e>x"] });
    expect(learnt(tokenizer, tokenizer.vocabSize - 2)).toEqual(["yz"]);
  });

  it("learns no token that is written as a special one", async () => {
    const texts = ["to the ".repeat(9)];
    const specialTokens = ["Ġthe"];
    const tokenizer = await trainBpe(texts, { vocabSize: 300, specialTokens });
    expect(learnt(await trainBpe(texts, { vocabSize: 300 }), 999)).toContain(" the");
    expect(learnt(tokenizer, tokenizer.vocabSize - 1)).not.toContain(" the");
    for (const text of [...texts, "a Ġthe"])
      expect(tokenizer.decode(tokenizer.encode(text), { skipSpecialTokens: false })).toBe(text);
  });

  it("counts words at Unicode's spaces, which aren't JavaScript's", async () => {
    const tokenizer = await trainBpe(["\uFEFF!\uFEFF! "], { vocabSize: 300 });
    expect(learnt(tokenizer, tokenizer.vocabSize)).toContain("ï»¿!");
  });

  it("ends early where no pair is frequent enough", async () => {
    expect((await trainBpe([], { vocabSize: 1000 })).vocabSize).toBe(256);
    expect((await trainBpe(["abcdef"], { vocabSize: 1000 })).vocabSize).toBe(256);
    expect((await trainBpe(["abcdef"], { vocabSize: 1000, minFrequency: 1 })).vocabSize).toBe(261);
  });

  it("learns 8,000 tokens from ten megabytes", async () => {
    const text = await readText(shakespeare);
    // The same text ten times, with other words each time.
    const texts = Array.from({ length: 10 }, (_, i) =>
      text.replace(/[aeiou]/g, (c) => String.fromCharCode(c.charCodeAt(0) + i)),
    );
    const tokenizer = await trainBpe(texts, { vocabSize: 8000 });
    expect(tokenizer.vocabSize).toBe(8000);
  }, 240_000);

  it("ends when aborted", async () => {
    const controller = new AbortController();
    controller.abort(new Error("enough"));
    await expect(trainBpe(["ab ab"], { vocabSize: 300, signal: controller.signal })).rejects.toThrow("enough");
  });

  it.each([
    [{ vocabSize: 255 }, /vocabSize must be an integer of at least 256/],
    [{ vocabSize: 256, specialTokens: ["a"] }, /at least 257/],
    [{ vocabSize: 300.5 }, /received 300\.5/],
    [{ vocabSize: 300, minFrequency: 0 }, /minFrequency must be a positive integer; received 0/],
    [{ vocabSize: 300, specialTokens: ["a", "a"] }, /specialTokens must be different/],
    [{ vocabSize: 300, specialTokens: [""] }, /at least one character/],
    [{ vocabSize: 300, specialTokens: ["é"] }, /"é" is how the byte 233 is written in the vocabulary/],
  ])("refuses %o", async (options, message) => {
    await expect(trainBpe(["text"], options)).rejects.toThrow(message);
  });
});

describe("tokenizerJson", () => {
  it("states the byte tokenizer", () => {
    const loaded = huggingFaceTokenizer(tokenizerJson(byteTokenizer()));
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(loaded.encode(text)).toEqual(byteTokenizer().encode(text));
      }),
    );
  });
});
