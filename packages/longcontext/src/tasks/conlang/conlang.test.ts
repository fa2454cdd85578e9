import { Random } from "@llmeff/data";
import { describe, expect, it } from "vitest";
import type { CONDITIONS } from "./book.js";
import { drawClause, featuresOf } from "./clauses.js";
import { conlang } from "./conlang.js";
import { englishReferences, englishSentence } from "./english.js";
import { iclSample, longestIclSample } from "./icl-scaling.js";
import { drawLanguage } from "./language.js";
import { attach, constructedSentence } from "./realize.js";

describe("attach", () => {
  it("changes sounds where stem and ending meet", () => {
    const plain = { sandhi: "none", epenthesis: "" };
    expect(attach("kora", "", plain)).toBe("kora");
    expect(attach("kora", "en", plain)).toBe("koraen");
    expect(attach("kora", "en", { ...plain, sandhi: "elide" })).toBe("koren");
    expect(attach("kora", "en", { ...plain, sandhi: "glide:j" })).toBe("korajen");
    expect(attach("tam", "ka", { ...plain, epenthesis: "i" })).toBe("tamika");
    expect(attach("tam", "en", { sandhi: "elide", epenthesis: "i" })).toBe("tamen");
  });
});

describe("drawLanguage", () => {
  it.each([200, 800, 2000])("has %i lexemes with stems of their own", (size) => {
    const { grammar } = drawLanguage(new Random(1, "language"), size);
    const stems = [grammar.nouns, grammar.verbs, grammar.adjs, grammar.adps].flatMap((entries) =>
      Object.values(entries).map(({ c }) => c),
    );
    expect(stems).toHaveLength(size);
    expect(new Set(stems).size).toBe(size);
    expect(grammar.case.G).not.toBe("");
  });
});

describe("drawClause", () => {
  it("shows what is wanted and nothing that is unseen", () => {
    const { grammar, keys } = drawLanguage(new Random(2, "language"), 200);
    const random = new Random(2, "clauses");
    for (let i = 0; i < 500; i++) {
      const clause = drawClause(random, {
        grammar,
        keys,
        wanted: ["neg"],
        unseen: [
          ["neg", "q"],
          ["obj.pl", "past"],
        ],
      });
      const features = featuresOf(clause);
      expect(features.has("neg")).toBe(true);
      expect(features.has("q")).toBe(false);
      expect(features.has("obj.pl") && features.has("past")).toBe(false);
      expect(constructedSentence(clause, grammar)).toMatch(/^[a-z]+(?: [a-z]+)*\.$/);
    }
  });
});

describe("englishReferences", () => {
  it("gives every setting of the articles where the language has none", () => {
    const { grammar, keys } = drawLanguage(new Random(3, "language"), 200);
    const [noun, other] = keys.nouns as [string, string];
    const verb = keys.verbs.find((key) => grammar.verbs[key]!.trans)!;
    const clause = {
      subj: { noun, num: "sg" as const },
      verb,
      tense: "past" as const,
      obj: { noun, num: "pl" as const, poss: { noun: other, num: "sg" as const, def: true } },
    };
    const references = englishReferences(clause, { ...grammar, def: "" });
    expect(references).toHaveLength(4);
    expect(references[0]).toBe(englishSentence(clause, grammar));
    expect(englishReferences(clause, { ...grammar, def: "ta" })).toHaveLength(1);
  });
});

describe("conlang", () => {
  it("never shows the features together that the test combines", () => {
    const samples = Array.from({ length: 120 }, (_, index) => conlang({ seed: 1, index, maxTokens: 24_000 }));
    const asked = samples.filter(({ meta }) => meta.composed.includes("neg") && meta.composed.includes("q"));
    expect(asked.length).toBeGreaterThan(0);
    for (const { messages, meta } of asked) {
      const english = messages[0]!.content.match(/^.* = (.*)$/gm) ?? [];
      const glosses = messages[0]!.content.match(/^ {4}[A-Z].*$/gm) ?? [];
      const both = [...english, ...glosses].filter((line) => / not /.test(line) && line.endsWith("?"));
      expect(both, meta.language).toEqual([]);
      expect(featuresOf(meta.item).has("neg") && featuresOf(meta.item).has("q")).toBe(true);
    }
  });

  it("gives each condition its parts of the book", () => {
    const book = (condition: (typeof CONDITIONS)[number]) =>
      conlang({ seed: 2, index: 0, maxTokens: 40_000 }, { condition }).messages[0]!.content;
    const parts = (text: string) =>
      ["## The grammar", "## Dictionary", "## Sentences"].map((part) => text.includes(part));
    expect(parts(book("none"))).toEqual([false, false, false]);
    expect(parts(book("full"))).toEqual([true, true, true]);
    expect(parts(book("half"))).toEqual([true, true, true]);
    expect(parts(book("rules-only"))).toEqual([true, true, false]);
    expect(parts(book("examples-only"))).toEqual([false, false, true]);
    const chapters = (text: string) => text.match(/^### \d+\. /gm)!.length;
    expect(chapters(book("full"))).toBe(11);
    expect(chapters(book("half"))).toBe(6);
    expect(book("rules-only")).not.toMatch(/^ {4}\S+ \(/m);
    expect(book("full")).toMatch(/^ {4}\S+ \(/m);
  });

  it("asks several sentences of one book", () => {
    const samples = [0, 1, 2].map((index) => conlang({ seed: 3, index, maxTokens: 32_768 }, { sentencesPerBook: 3 }));
    const books = samples.map(({ messages }) => messages[0]!.content.split("\n\nTranslate from ")[0]);
    expect(new Set(books).size).toBe(1);
    expect(new Set(samples.map(({ meta }) => JSON.stringify(meta.item))).size).toBe(3);
  });

  it("refuses what it does not know", () => {
    const make = (params: object) => () => conlang({ seed: 1, index: 0, maxTokens: 40_000 }, params);
    expect(make({ condition: "most" })).toThrow(/condition must be one of none/);
    expect(make({ direction: "x-x" })).toThrow(/direction must be/);
    expect(make({ lexemes: 100 })).toThrow(/lexemes must be/);
    expect(make({ compose: 1 })).toThrow(/compose must be/);
  });
});

describe("iclSample", () => {
  const options = { seed: 4, index: 0 };
  const pairsOf = (content: string): string[] => content.match(/^.+ = .+$/gm) ?? [];

  it("shows K pairs, those of a smaller K first, and others in another draw", () => {
    const [small, large, other] = [
      iclSample(options, { pairs: 4 }),
      iclSample(options, { pairs: 64 }),
      iclSample(options, { pairs: 64, draw: 1 }),
    ].map(({ messages }) => pairsOf(messages[0]!.content)) as [string[], string[], string[]];
    expect([small.length, large.length, other.length]).toEqual([4, 64, 64]);
    expect(large.slice(0, 4)).toEqual(small);
    expect(other).not.toEqual(large);
  });

  it("takes its budget from K, or keeps to one that is given", () => {
    const { budget, complexity, target } = iclSample(options, { pairs: 16 });
    expect(budget.maxTokens).toBe(budget.promptTokens + budget.reserve);
    expect(complexity).toBe(16);
    expect(iclSample(options, { pairs: 0 }).target).toEqual(target);
    expect(() => iclSample({ ...options, maxTokens: 300 }, { pairs: 16 })).toThrow(/need \d+ tokens/);
  });

  it("takes the most pairs that fit a length, of the same language and test sentence", () => {
    const samples = [700, 1500, 12_000].map((maxTokens) => longestIclSample({ ...options, maxTokens }));
    for (const { budget, complexity, meta } of samples) {
      expect(iclSample(options, { pairs: complexity }).budget.maxTokens).toBeLessThanOrEqual(budget.maxTokens);
      expect(iclSample(options, { pairs: 2 * complexity }).budget.maxTokens).toBeGreaterThan(budget.maxTokens);
      expect(meta.item).toEqual(samples[0]!.meta.item);
    }
    expect(new Set(samples.map(({ complexity }) => complexity)).size).toBe(3);
    expect(longestIclSample({ ...options, maxTokens: 2_000_000 }).complexity).toBe(4096);
    expect(() => longestIclSample({ ...options, maxTokens: 300 })).toThrow(/need \d+ tokens/);
  });
});
