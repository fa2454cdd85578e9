import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { plainBlocks } from "../../test/plain-matcher.js";
import { LongestRun, NOT_INDEXED } from "./longest-run.js";
import { matchingBlocks, ratio } from "./sequence-matcher.js";

const triples = (a: string, b: string, autojunk: boolean) =>
  matchingBlocks(a, b, { autojunk }).map((block) => [block.a, block.b, block.size]);

/** Texts over few letters, which have many runs of equal length. */
const fewLetters = (letters: string, length: { minLength?: number; maxLength: number }) =>
  fc.array(fc.constantFrom(...letters), length).map((chars) => chars.join(""));

describe("matchingBlocks", () => {
  it("is what the rules say of a small case", () => {
    // "cd" is the longest run; left of it "ab" of "abx" and "ab" match, right of it nothing is left.
    expect(triples("abxcd", "abcd", true)).toEqual([
      [0, 0, 2],
      [3, 2, 2],
      [5, 4, 0],
    ]);
  });

  it("takes of equal runs the first in a, then in b", () => {
    expect(triples("xaya", "aza", false)).toEqual([
      [1, 0, 1],
      [3, 2, 1],
      [4, 3, 0],
    ]);
  });

  it("follows the rules to the letter", () => {
    fc.assert(
      fc.property(fewLetters("ab", { maxLength: 40 }), fewLetters("abc", { maxLength: 40 }), (a, b) => {
        expect(triples(a, b, false)).toEqual(plainBlocks(a, b, false));
      }),
      { numRuns: 300 },
    );
  });

  it("follows them where popular elements part the runs, and where the automaton takes over", () => {
    // Of 220 places, a letter is popular from four on: the rare ones are indexed, the common ones only extend.
    const common = fewLetters("ab", { minLength: 210, maxLength: 260 });
    const mixed = fc
      .tuple(common, fc.array(fc.tuple(fc.nat(199), fc.constantFrom(..."cdefgh🙂")), { maxLength: 12 }))
      .map(([text, rare]) => rare.reduce((chars, [at, char]) => chars.toSpliced(at, 1, char), [...text]).join(""));
    fc.assert(
      fc.property(mixed, mixed, fc.boolean(), (a, b, autojunk) => {
        expect(triples(a, b, autojunk)).toEqual(plainBlocks(a, b, autojunk));
      }),
      { numRuns: 25 },
    );
  });

  it("has blocks that are common, ascend and don't touch", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" }), (a, b) => {
        const charsA = Array.from(a);
        const charsB = Array.from(b);
        let endA = 0;
        let endB = 0;
        for (const [i, block] of matchingBlocks(a, b).entries()) {
          expect(charsA.slice(block.a, block.a + block.size)).toEqual(charsB.slice(block.b, block.b + block.size));
          expect(block.a).toBeGreaterThanOrEqual(endA);
          expect(block.b).toBeGreaterThanOrEqual(endB);
          if (i > 0 && block.size > 0) expect(block.a > endA || block.b > endB).toBe(true);
          endA = block.a + block.size;
          endB = block.b + block.size;
        }
        expect([endA, endB]).toEqual([charsA.length, charsB.length]);
      }),
    );
  });
});

describe("ratio", () => {
  it("counts code points, and an unpaired surrogate as one", () => {
    expect(ratio("🙂a", "🙂b")).toBe(0.5);
    expect(ratio("\ud83d", "\ud83d")).toBe(1);
    expect(ratio("\ud83d", "\ude42")).toBe(0);
    expect(ratio("🙂", "\ud83d")).toBe(0);
  });

  it("is 1 for equal texts and 0 for texts without a common letter", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(ratio(text, text, { autojunk: false })).toBe(1);
      }),
    );
    expect(ratio("abc", "")).toBe(0);
    expect(ratio("", "")).toBe(1);
    expect(ratio("abc", "xyz")).toBe(0);
  });

  it("parts a text thousands of times without running out of stack", () => {
    // Each shared letter stands alone, so each range has one block at its start.
    const shared = Array.from({ length: 20_000 }, (_, i) => String.fromCodePoint(0x4e00 + i));
    const a = shared.map((char) => `${char}x`).join("");
    const b = shared.map((char) => `${char}y`).join("");
    expect(ratio(a, b, { autojunk: false })).toBe(0.5);
  });

  it("ends soon where rows over all pairs take longer than a test may", () => {
    const looping = ["abcdefgh".repeat(4000), "abcdefghij".repeat(3200)] as const;
    expect(ratio(...looping, { autojunk: false })).toBe(0.8);
    expect(ratio("a".repeat(32_000), "aab".repeat(10_666), { autojunk: false })).toBeGreaterThan(0.6);
  });
});

describe("LongestRun", () => {
  const ids = fc.array(fc.integer({ min: NOT_INDEXED, max: 3 }), { maxLength: 60 });

  it("finds the same run by rows and by the automaton, in any range and with any bound that holds", () => {
    fc.assert(
      fc.property(ids, ids, fc.array(fc.nat(60), { minLength: 4, maxLength: 4 }), (a, b, ends) => {
        const longest = longestRunOf(a, b);
        const [lowA, highA] = ends
          .slice(0, 2)
          .map((end) => Math.min(end, a.length))
          .sort((x, y) => x - y) as [number, number];
        const [lowB, highB] = ends
          .slice(2)
          .map((end) => Math.min(end, b.length))
          .sort((x, y) => x - y) as [number, number];
        const range = { lowA, highA, lowB, highB };
        const byRows = longest.find(range, 1000, Number.POSITIVE_INFINITY);
        expect(longest.find(range, 1000, -1)).toEqual(byRows);
        // The bound is met by the run itself.
        if (byRows.size > 0) {
          expect(longest.find(range, byRows.size, Number.POSITIVE_INFINITY)).toEqual(byRows);
          expect(longest.find(range, byRows.size, -1)).toEqual(byRows);
        }
      }),
      { numRuns: 500 },
    );
  });

  function longestRunOf(a: number[], b: number[]): LongestRun {
    const first = new Int32Array(5);
    const places = [0, 1, 2, 3].flatMap((id) => {
      const found = b.flatMap((other, j) => (other === id ? [j] : []));
      first[id + 1] = first[id]! + found.length;
      return found;
    });
    return new LongestRun(Int32Array.from(a), Int32Array.from(b), { first, places: Int32Array.from(places) });
  }
});
