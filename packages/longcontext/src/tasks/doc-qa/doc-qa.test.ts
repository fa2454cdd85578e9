import { describe, expect, it } from "vitest";
import { DOCUMENT_ATTRIBUTES, PASTIMES } from "./attributes.js";
import { docQa } from "./doc-qa.js";

const STOP_WORDS = new Set(
  "a an the of in on for at and by to from out with that s is can be her his its goes up".split(" "),
);
const contentWords = (text: string): string[] =>
  (text.toLowerCase().match(/[a-z]+/g) ?? []).filter((word) => !STOP_WORDS.has(word));

describe("docQa", () => {
  it("writes documents of 60 to 150 words", () => {
    const { messages } = docQa({ seed: 1, index: 0, maxTokens: 131_072 });
    const documents = messages[0]!.content.split("\n\n").slice(1, -1);
    expect(documents.length).toBeGreaterThan(100);
    for (const document of documents) {
      const [, text = ""] = document.split("\n");
      const words = text.split(" ").length;
      expect(words).toBeGreaterThanOrEqual(60);
      expect(words).toBeLessThanOrEqual(150);
    }
  });

  it("paraphrases pastimes without a word of the evidence", () => {
    const { sentences } = DOCUMENT_ATTRIBUTES.person.find(({ name }) => name === "pastime")!;
    for (const [deed, paraphrase] of PASTIMES) {
      const evidence = new Set(sentences.flatMap((sentence) => contentWords(sentence.replace("{v}", deed))));
      expect(contentWords(`Which person ${paraphrase}?`).filter((word) => evidence.has(word))).toEqual([]);
    }
  });

  it("pairs the two wordings on the same documents", () => {
    const [literal, other] = [true, false].map((flag) =>
      docQa({ seed: 2, index: 3, maxTokens: 16_384 }, { literal: flag }),
    ) as [ReturnType<typeof docQa>, ReturnType<typeof docQa>];
    expect(other.target).toEqual(literal.target);
    expect(other.meta.facts).toEqual(literal.meta.facts);
    const documents = (sample: typeof literal) => sample.messages[0]!.content.split("\n\n").slice(0, 8);
    expect(documents(other)).toEqual(documents(literal));
  });

  it("asks for attributes of all kinds, over two documents where wanted", () => {
    const questions = (hops: 1 | 2) =>
      Array.from({ length: 60 }, (_, index) => {
        const { content } = docQa({ seed: 3, index, maxTokens: 8192 }, { hops }).messages[0]!;
        return /Question: What is the (.+?) of /.exec(content)![1];
      });
    expect(new Set(questions(1)).size).toBe(12);
    expect(new Set(questions(2)).size).toBe(8);
    expect(() => docQa({ seed: 1, index: 0, maxTokens: 8192 }, { hops: 3 as 1 })).toThrow(/hops must be/);
  });
});
