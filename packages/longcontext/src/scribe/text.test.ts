import { Random } from "@llmeff/data";
import { describe, expect, it } from "vitest";
import { commonSubsequenceLength } from "./common-subsequence.js";
import { DistinctTexts, SIGNATURE_LENGTH } from "./distinct-texts.js";
import { FORMAT_NAMES, FORMATS } from "./formats.js";
import { compileFrames } from "./frame.js";
import { STYLE_NAMES } from "./styles.js";
import { LEAST_BYTES, MOST_BYTES, writeText } from "./text.js";
import { ADJECTIVES, ADVERBS } from "./vocabulary/modifiers.js";
import { NOUNS } from "./vocabulary/nouns.js";
import { TOPICS } from "./vocabulary/topics.js";
import { VERBS } from "./vocabulary/verbs.js";

const key = (i: number) => ({
  format: FORMAT_NAMES[i % FORMAT_NAMES.length]!,
  topic: TOPICS[i % TOPICS.length]!,
  style: STYLE_NAMES[Math.floor(i / FORMAT_NAMES.length) % STYLE_NAMES.length]!,
});
/** Slots that the word lists fill; names, places and numbers are made. */
const lexicalSlots = new Set("n ns ann Ann arhyme adj anadj adv v vs vd vp iv ivs ivd rhyme".split(" "));

describe("vocabulary", () => {
  it("is as large as promised, without a word twice", () => {
    const sizes: [readonly string[], number][] = [
      [TOPICS, 160],
      [FORMAT_NAMES, 10],
      [STYLE_NAMES, 8],
      [NOUNS.map(({ sg }) => sg), 400],
      [VERBS.map(({ base }) => base), 200],
      [ADJECTIVES, 200],
      [ADVERBS, 100],
    ];
    for (const [words, least] of sizes) {
      expect(words.length).toBeGreaterThanOrEqual(least);
      expect(new Set(words).size).toBe(words.length);
      for (const word of words) expect(word).toMatch(/^[A-Za-z]+(?: [A-Za-z]+)*$/);
    }
  });
});

describe("frames", () => {
  const registers = [...new Set(FORMAT_NAMES.map((name) => FORMATS[name].register))];

  it.each(registers.map((register) => [register]))(
    "are at least twelve for every slot, with two to five words to fill in",
    (register) => {
      for (const part of ["openings", "bodies", "closings"] as const) {
        const frames = compileFrames(register[part]);
        expect(frames.length).toBeGreaterThanOrEqual(12);
        for (const { slots } of frames) {
          const lexical = slots.filter((slot) => lexicalSlots.has(slot));
          expect(lexical.length, slots.join()).toBeGreaterThanOrEqual(2);
          expect(lexical.length, slots.join()).toBeLessThanOrEqual(5);
        }
      }
    },
  );
});

describe("writeText", () => {
  it("keeps to the length, names its topic twice and begins with a name and a number", () => {
    const random = new Random(1, "text");
    for (let i = 0; i < 2000; i++) {
      const text = writeText(random, key(i));
      expect(Buffer.byteLength(text)).toBeGreaterThanOrEqual(LEAST_BYTES);
      expect(Buffer.byteLength(text)).toBeLessThanOrEqual(MOST_BYTES);
      expect(text.split(key(i).topic).length).toBeGreaterThanOrEqual(3);
      expect(text.slice(0, SIGNATURE_LENGTH)).toMatch(/[A-Z][a-z]{3,}[^\d]*\d{2,4}\b/);
      expect(text).toMatch(/[.,!?]/);
      expect(text).not.toMatch(/[{}]|undefined| {2}/);
    }
  });

  it("makes 10,000 texts of one key without a duplicate", () => {
    const random = new Random(2, "text");
    const texts = new Set(Array.from({ length: 10_000 }, () => writeText(random, key(0))));
    expect(texts.size).toBe(10_000);
    expect(new Set([...texts].map((text) => text.slice(0, SIGNATURE_LENGTH))).size).toBeGreaterThan(9_900);
  });
});

describe("commonSubsequenceLength", () => {
  function byTable(a: string, b: string): number {
    let row = new Array<number>(b.length + 1).fill(0);
    for (const x of a) {
      const next = [0];
      for (let j = 0; j < b.length; j++) next.push(x === b[j] ? row[j]! + 1 : Math.max(row[j + 1]!, next[j]!));
      row = next;
    }
    return row[b.length]!;
  }

  it("equals the table of the dynamic programme", () => {
    const random = new Random(3, "lcs");
    const word = (length: number, letters: number) =>
      Array.from({ length }, () => String.fromCharCode(97 + random.integer(0, letters))).join("");
    for (let i = 0; i < 300; i++) {
      const [a, b] = [word(random.integer(0, 150), 4), word(random.integer(0, 150), 4)];
      expect(commonSubsequenceLength(a, b)).toBe(byTable(a, b));
    }
  });
});

describe("DistinctTexts", () => {
  it("refuses equal texts, equal beginnings within a key, and texts with few changed words", () => {
    const random = new Random(4, "text");
    const texts = new DistinctTexts();
    const text = writeText(random, key(3));
    expect(texts.accept("a", text)).toBe(true);
    expect(texts.accept("b", text)).toBe(false);
    expect(texts.accept("a", text.slice(0, SIGNATURE_LENGTH) + writeText(random, key(4)))).toBe(false);
    expect(texts.accept("a", `Another beginning of forty-eight characters, 17: ${text}`)).toBe(false);
    expect(texts.accept("a", writeText(random, key(3)))).toBe(true);
  });
});
