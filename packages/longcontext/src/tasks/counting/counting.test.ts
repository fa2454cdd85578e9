import { describe, expect, it } from "vitest";
import { commonWords } from "./common-words.js";
import { frequentWords, zeta } from "./frequent-words.js";

function countsOf(words: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return counts;
}

describe("commonWords", () => {
  it("has ten words thirty times and all others three times", () => {
    const { messages, target } = commonWords({ seed: 1, index: 0, maxTokens: 32_768 });
    const counts = countsOf(messages[0]!.content.match(/(?<=\d\. )\S+/g)!);
    expect(target.map((word) => counts.get(word))).toEqual(new Array(10).fill(30));
    expect(new Set([...counts].filter(([word]) => !target.includes(word)).map(([, count]) => count))).toEqual(
      new Set([3]),
    );
  });

  it("takes RULER's small counts below 4096 tokens", () => {
    const { meta } = commonWords({ seed: 1, index: 0, maxTokens: 4000 });
    expect([meta.commonCount, meta.otherCount]).toEqual([6, 1]);
  });

  it("refuses counts without a gap", () => {
    const make = (params: object) => () => commonWords({ seed: 1, index: 0, maxTokens: 32_768 }, params);
    expect(make({ commonCount: 3, otherCount: 3 })).toThrow(/commonCount must be above otherCount/);
    expect(make({ common: 0 })).toThrow(/common must be/);
  });
});

describe("frequentWords", () => {
  it("follows the zeta law", () => {
    const { messages, target, meta } = frequentWords({ seed: 1, index: 0, maxTokens: 65_536 });
    const text = messages[0]!.content.split("Text:\n")[1]!.split("\n\n")[0]!;
    const counts = countsOf(text.split(" "));
    expect(target.map((word) => counts.get(word))).toEqual(meta.counts);
    // Rank 1 is the noise, four times as frequent as rank 2, nine times as rank 3.
    const noise = counts.get("...")!;
    expect(meta.counts.map((count) => Math.round(Math.sqrt(noise / count)))).toEqual([2, 3, 4]);
  });

  it("has a gap after the third answer for every exponent and length", () => {
    for (const alpha of [1.2, 2, 3, 4]) {
      for (const maxTokens of [8192, 16_384, 50_000]) {
        const { meta, messages } = frequentWords({ seed: 1, index: 1, maxTokens }, { alpha });
        const text = messages[0]!.content.split("Text:\n")[1]!.split("\n\n")[0]!;
        const ranked = [...countsOf(text.split(" ")).values()].sort((a, b) => b - a);
        expect(ranked[3]).toBe(meta.counts[2]);
        expect(ranked[3]).toBeGreaterThan(ranked[4] ?? 0);
      }
    }
  });

  it("knows zeta", () => {
    expect(zeta(2)).toBeCloseTo(Math.PI ** 2 / 6, 13);
    expect(zeta(4)).toBeCloseTo(Math.PI ** 4 / 90, 13);
    expect(() => frequentWords({ seed: 1, index: 0, maxTokens: 8192 }, { alpha: 1 })).toThrow(/alpha must be above 1/);
  });
});
