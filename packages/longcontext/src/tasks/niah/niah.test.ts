import { describe, expect, it } from "vitest";
import { checkSample } from "../../check/check-sample.js";
import { HaystackTooShortError } from "../../errors.js";
import { splitSentences } from "../haystack.js";
import { needleDepths, needleGrid } from "./grid.js";
import { NIAH_VARIANTS, type NiahVariant, niah } from "./niah.js";

const text = (sample: { messages: { content: string }[] }): string => sample.messages[0]!.content;

describe("niah", () => {
  it.each(Object.keys(NIAH_VARIANTS) as NiahVariant[])("makes %s as RULER has it", (variant) => {
    const { keys, values, queries } = NIAH_VARIANTS[variant];
    const sample = niah({ seed: 1, index: 0, maxTokens: 20_000 }, { variant });
    expect(sample.complexity).toBe(keys * values);
    expect(sample.meta.needles).toHaveLength(keys * values);
    expect(sample.meta.queries).toHaveLength(queries);
    expect(sample.target).toHaveLength(queries * values);
    expect(sample.meta.depths).toEqual([...sample.meta.depths].sort((a, b) => a - b));
  });

  it("has no two keys or values alike among 10,000 distractors", () => {
    for (const variant of ["niah_mk2", "niah_mk3"] as const) {
      const needles = text(niah({ seed: 1, index: 0, maxTokens: 600_000 }, { variant })).match(/^The registry .*$/gm)!;
      const [keys, values] = [/for (\S+) is/, /is (\S+)\.$/].map((part) => needles.map((line) => part.exec(line)![1]));
      expect(new Set(keys).size).toBe(needles.length);
      expect(new Set(values).size).toBe(needles.length);
    }
  });

  it("takes a text of the user's, and passes over keys and values that it holds", () => {
    const sentence = (i: number): string => `Sentence number ${i} of a text that somebody has given.`;
    const haystack = { name: "mine", text: Array.from({ length: 400 }, (_, i) => sentence(i)).join(" ") };
    const options = { seed: 4, index: 0, maxTokens: 16_384 };
    const sample = niah(options, { haystack });
    expect(checkSample(sample).problems).toEqual([]);
    expect(sample.meta.haystack).toBe("mine");
    const [[key, value]] = sample.meta.needles as [[string, string]];
    const other = niah(options, { haystack: { name: "mine", text: `${haystack.text} A ${key} costs ${value}.` } });
    expect(other.meta.needles[0]![0]).not.toBe(key);
    expect(other.meta.needles[0]![1]).not.toBe(value);
    expect(() => niah({ ...options, maxTokens: 65_536 }, { haystack })).toThrow(HaystackTooShortError);
  });

  it("splits a text where sentences and paragraphs end", () => {
    expect(splitSentences('He said "No." Then\nhe left.\n\nA title\n\nDr. who? Yes, 3.5 of it.')).toEqual([
      'He said "No."',
      "Then he left.",
      "A title",
      "Dr. who?",
      "Yes, 3.5 of it.",
    ]);
  });

  it("refuses what it does not know", () => {
    const make = (params: object) => () => niah({ seed: 1, index: 0, maxTokens: 4096 }, params);
    expect(make({ variant: "niah_s9" })).toThrow(/variant must be one of niah_s1/);
    expect(make({ haystack: "hay" })).toThrow(/haystack must be/);
    expect(make({ keys: 0 })).toThrow(/keys must be an integer/);
    expect(() => niah({ seed: -1, index: 0, maxTokens: 4096 })).toThrow(/seed must be/);
    expect(() => niah({ seed: 1, index: 0.5, maxTokens: 4096 })).toThrow(/index must be/);
    expect(() => niah({ seed: 1, index: 0, maxTokens: 0 })).toThrow(/maxTokens must be/);
  });
});

describe("needleDepths", () => {
  it("are linear, or closer at the ends", () => {
    expect(needleDepths(5)).toEqual([0, 25, 50, 75, 100]);
    const sigmoid = needleDepths(5, { spacing: "sigmoid" });
    // 100 / (1 + e^2.5) = 7.5858
    expect(sigmoid[0]).toBe(0);
    expect(sigmoid[1]).toBeCloseTo(7.5858, 4);
    expect(sigmoid[2]).toBeCloseTo(50, 12);
    expect(sigmoid[4]).toBe(100);
  });
});

describe("needleGrid", () => {
  it("moves one needle along depths and lengths", () => {
    const samples = [...needleGrid({ seed: 1, lengths: [4096, 16_384], depths: [0, 50, 100], perCell: 2 })];
    expect(samples).toHaveLength(12);
    const first = samples.filter(({ index }) => index === 0);
    expect(new Set(first.map(({ target }) => target[0])).size).toBe(1);
    for (const [i, depth] of [0, 50, 100, 0, 50, 100].entries()) {
      expect(first[i]!.meta.askedDepth).toBe(depth);
      // A line of prose has up to 300 bytes, 8 % of the shorter budget.
      expect(Math.abs(first[i]!.meta.depths[0]! - depth)).toBeLessThan(8);
    }
  });
});
