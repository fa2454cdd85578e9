import { OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { chrf, chrfCounts, corpusChrf } from "./chrf.js";
import { labelExclusive } from "./label-exclusive.js";
import { judgeScore } from "./needle-judge.js";
import { setOverlap, variableNames } from "./set-overlap.js";
import { squadScore } from "./squad.js";
import { matchAll, matchPart, postprocess } from "./string-match.js";
import { splitWords, trimSpace } from "./unicode-text.js";

describe("trimSpace and splitWords", () => {
  it("take Python's white space for such, and nothing else", () => {
    expect(trimSpace("\u001c\u0085\u3000 x \u2028\u001f")).toBe("x");
    expect(trimSpace("\ufeffx")).toBe("\ufeffx");
    expect(splitWords("a\u001db\u00a0c\ufeffd ")).toEqual(["a", "b", "c\ufeffd"]);
    expect(trimSpace(" \n ")).toBe("");
  });
});

describe("chrf", () => {
  it("is what the formula says of a small case", () => {
    // Unigrams of "ab" and "ac": 1 of 2 each; bigrams 0 of 1 each. P = R = (1/2 + 0)/2 = 1/4, so F = 25.
    expect(chrfCounts("ab", "ac").slice(0, 3)).toEqual([
      [2, 2, 1],
      [1, 1, 0],
      [0, 0, 0],
    ]);
    expect(chrf("ab", ["ac"])).toBe(25);
  });

  it("is 100 for a text with letters against itself, and within [0, 100]", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", minLength: 1 }), fc.string({ unit: "grapheme" }), (x, y) => {
        if (trimSpace(x) !== "") expect(chrf(x, [x], { wordOrder: 2 })).toBeCloseTo(100, 10);
        const score = chrf(x, [y]);
        expect(score).toBeGreaterThanOrEqual(0);
        expect(score).toBeLessThanOrEqual(100 + 1e-9);
      }),
    );
  });

  it("takes the best of several references, whatever their order", () => {
    expect(chrf("the cat", ["a dog", "the cat"])).toBe(100);
    expect(chrf("the cat", ["the cat", "a dog"])).toBe(100);
  });

  it("sums counts before it averages, so a long sentence weighs more", () => {
    const corpus = corpusChrf(["x", "abcdefghij"], [["y"], ["abcdefghij"]]);
    expect(corpus).toBeGreaterThan((chrf("x", ["y"]) + chrf("abcdefghij", ["abcdefghij"])) / 2);
    expect(corpusChrf([], [])).toBe(0);
  });

  it("refuses what has no score", () => {
    expect(() => chrf("x", [])).toThrow(OptionError);
    expect(() => chrf("x", ["x"], { charOrder: 0 })).toThrow(OptionError);
    expect(() => chrf("x", ["x"], { charOrder: 1.5 })).toThrow(OptionError);
    expect(() => chrf("x", ["x"], { beta: 0 })).toThrow(OptionError);
    expect(() => corpusChrf(["x"], [])).toThrow(OptionError);
  });
});

describe("matchAll and matchPart", () => {
  it("don't take a part of a number or word for it", () => {
    expect(matchAll("apples 97518009", ["apple", "7518009"])).toBe(0);
    expect(matchAll("apples 97518009", ["apple", "7518009"], { compat: "ruler" })).toBe(1);
    expect(matchAll("9apple apple", ["apple"])).toBe(1);
    expect(matchPart("pear", ["apple", "pear"])).toBe(1);
  });

  it("find all of any references that are listed", () => {
    fc.assert(
      fc.property(fc.array(fc.stringMatching(/^[a-zA-Z0-9]{1,8}$/), { minLength: 1 }), (words) => {
        expect(matchAll(words.join(", "), words)).toBe(1);
      }),
    );
  });

  it("put a newline in place of each control character", () => {
    expect(postprocess("\u0000a\u0001b\tc\u001f")).toBe("a\nb\nc");
  });

  it("refuse no references and empty ones", () => {
    expect(() => matchAll("x", [])).toThrow(OptionError);
    expect(() => matchPart("x", [""])).toThrow(OptionError);
  });
});

describe("setOverlap", () => {
  it("counts repeated items once", () => {
    expect(setOverlap(["a", "a", "b"], ["a", "c", "d"])).toEqual({ precision: 1 / 2, recall: 1 / 3, f1: 2 / 5 });
    expect(setOverlap(["a"], [])).toEqual({ precision: 0, recall: 0, f1: 0 });
  });

  it("has the harmonic mean of precision and recall as F1", () => {
    const sets = fc.array(fc.constantFrom(..."abcdef"));
    fc.assert(
      fc.property(sets, sets, (x, y) => {
        const { precision, recall, f1 } = setOverlap(x, y);
        expect(f1).toBeCloseTo(precision + recall > 0 ? (2 * precision * recall) / (precision + recall) : 0, 12);
      }),
    );
  });
});

describe("variableNames", () => {
  it("finds words of five capitals once each", () => {
    expect(variableNames("VAR ABCDE, FGHIJ and ABCDE; not ABCDEF or abcde.")).toEqual(["ABCDE", "FGHIJ"]);
    expect(variableNames("none")).toEqual([]);
  });
});

describe("squadScore", () => {
  it("takes the best of each over the accepted answers", () => {
    expect(squadScore("in the old town", ["Old Town", "town"])).toEqual({ exactMatch: 0, f1: 4 / 5 });
    expect(squadScore("l’a", ["l’"])).toEqual({ exactMatch: 1, f1: 1 });
    expect(squadScore("theatre", ["atre"])).toEqual({ exactMatch: 0, f1: 0 });
    expect(() => squadScore("x", [])).toThrow(OptionError);
  });
});

describe("labelExclusive", () => {
  const labels = ["apple", "milk", "garden"];

  it("demands exactly the set of a target with commas", () => {
    const question = { target: "apple,milk", question: "What does he carry?", labels };
    expect(labelExclusive(question, "Milk and an apple.")).toBe(true);
    expect(labelExclusive(question, "An apple.")).toBe(false);
    expect(labelExclusive(question, "An apple and milk in the garden.")).toBe(false);
  });

  it("looks at the first sentence alone, and not at labels of the question", () => {
    const question = { target: "apple", question: "What is in the garden?", labels };
    expect(labelExclusive(question, "In the garden: an apple. Or milk?")).toBe(true);
    expect(labelExclusive(question, "An apple<context>milk")).toBe(true);
    expect(labelExclusive({ ...question, target: "garden" }, "The garden.")).toBe(false);
  });

  it("refuses an empty label", () => {
    expect(() => labelExclusive({ target: "x", question: "", labels: [""] }, "x")).toThrow(OptionError);
  });
});

describe("judgeScore", () => {
  it("maps 1 to 10 onto 0 to 1", () => {
    expect([1, 5.5, 10].map(judgeScore)).toEqual([0, 0.5, 1]);
    for (const score of [0, 11, Number.NaN]) expect(() => judgeScore(score)).toThrow(OptionError);
  });
});
