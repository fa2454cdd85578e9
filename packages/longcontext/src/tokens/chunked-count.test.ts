import { join } from "node:path";
import { loadHuggingFaceTokenizer, Random } from "@llmeff/data";
import { describe, expect, it } from "vitest";
import { goldenPath } from "../../../../test/golden.js";
import { proseLine } from "../scribe/prose.js";
import { commonWords } from "../tasks/counting/common-words.js";
import { latentList } from "../tasks/latent-list/latent-list.js";
import { niah } from "../tasks/niah/niah.js";
import { chunkedCount } from "./chunked-count.js";
import { fromTokenizer } from "./tokenizer.js";
import { UnitCounter } from "./unit-counter.js";

const contentOf = ({ messages }: { messages: { content: string }[] }): string => messages[0]!.content;

describe("chunkedCount", () => {
  const options = { seed: 1, index: 0, maxTokens: 120_000 };
  const texts: [string, string][] = [
    ["prose", contentOf(niah(options))],
    ["programs", contentOf(latentList(options))],
    ["a list on one line", contentOf(commonWords(options))],
    ["text without blanks", "ab😀".repeat(20_000)],
    ["blank lines and runs of blanks", "word\n\n   \n\tnext  \n".repeat(4000)],
  ];

  it.each(["gpt2-style", "llama2-style", "llama3-style"])(
    "equals the count of the whole text with %s",
    async (name) => {
      const tokenizer = await loadHuggingFaceTokenizer(join(goldenPath("tokenizers"), name, "tokenizer.json"));
      const whole = (text: string): number => tokenizer.encode(text, { addSpecialTokens: false }).length;
      for (const [what, text] of texts) expect(chunkedCount(whole).count(text), what).toBe(whole(text));
    },
  );

  it("counts again only what is new", () => {
    let counted = 0;
    const { count, countPieces } = chunkedCount((text) => {
      counted += text.length;
      return text.length;
    });
    const random = new Random(1, "prose");
    const lines = Array.from({ length: 10_000 }, () => proseLine(random));
    const text = lines.join("\n");
    expect(count(text)).toBe(text.length);
    expect(counted).toBeLessThan(1.05 * text.length);
    counted = 0;
    expect(count(text)).toBe(text.length);
    expect(countPieces(text.match(/.{1,700}/gs)!)).toBe(text.length);
    expect(counted).toBe(0);
    // A line put into the middle changes one chunk; the next cuts fall where they fell before.
    lines.splice(5000, 0, "A new line.");
    count(lines.join("\n"));
    expect(counted).toBeLessThan(0.25 * text.length);
  });
});

describe("UnitCounter", () => {
  it("counts 512 units of a slow tokenizer and guesses the others from their length", () => {
    let calls = 0;
    const count = (text: string): number => {
      calls++;
      return text.length / 2;
    };
    const encode = (text: string) => new Int32Array(text.length / 2);
    const [slow, fast] = [true, false].map((isSlow) => new UnitCounter({ id: "x", encode, count, slow: isSlow }));
    for (let i = 0; i < 1000; i++) expect(slow!.count("abcd")).toBe(2);
    expect(calls).toBe(512);
    for (let i = 0; i < 1000; i++) fast!.count("abcd");
    expect(calls).toBe(1512);
  });

  it("leaves budgets exact", async () => {
    const data = await loadHuggingFaceTokenizer(join(goldenPath("tokenizers"), "llama3-style", "tokenizer.json"));
    const tokenizer = fromTokenizer("llama3-style", data);
    const { budget, messages, meta } = niah({ seed: 1, index: 0, maxTokens: 150_000, tokenizer });
    expect(budget.promptTokens).toBe(data.encode(messages[0]!.content, { addSpecialTokens: false }).length);
    expect(150_000 - 128 - budget.promptTokens).toBeGreaterThanOrEqual(0);
    expect(150_000 - 128 - budget.promptTokens).toBeLessThan(meta.maxUnitTokens);
  });
});
