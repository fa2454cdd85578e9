import { describe, expect, it } from "vitest";
import type { Message } from "../../sample.js";
import { commonSubsequenceLength } from "../../scribe/common-subsequence.js";
import { mrcr } from "./mrcr.js";
import { ordinalWord, request } from "./requests.js";

const replies = (messages: readonly Message[]): string[] =>
  messages.filter(({ role }) => role === "assistant").map(({ content }) => content);

function shingles(text: string): Set<string> {
  const words = text.split(/\s+/);
  return new Set(Array.from({ length: Math.max(0, words.length - 7) }, (_, i) => words.slice(i, i + 8).join(" ")));
}

describe("mrcr", () => {
  it("keeps all replies apart", () => {
    const { messages, meta } = mrcr({ seed: 1, index: 0, maxTokens: 131_072 }, { needles: 8, keyDepth: 3 });
    const all = replies(messages);
    expect(all.length).toBeGreaterThan(80);
    expect(new Set(all).size).toBe(all.length);
    const asked = messages.flatMap(({ content }, i) =>
      content === request(meta.key) ? [messages[i + 1]!.content] : [],
    );
    expect(asked).toHaveLength(8);
    for (const [i, a] of asked.entries()) {
      for (const b of asked.slice(0, i)) {
        expect(a.slice(0, 48)).not.toBe(b.slice(0, 48));
        expect((2 * commonSubsequenceLength(a, b)) / (a.length + b.length)).toBeLessThanOrEqual(0.8);
      }
    }
    const sets = all.map(shingles);
    for (const [i, a] of sets.entries()) {
      for (const b of sets.slice(0, i)) {
        const common = [...a].filter((shingle) => b.has(shingle)).length;
        expect(common / (a.size + b.size - common)).toBeLessThanOrEqual(0.5);
      }
    }
  });

  it("has near-misses, and no filler about the topic asked for beside them", () => {
    for (let index = 0; index < 10; index++) {
      const { messages, meta } = mrcr({ seed: 2, index, maxTokens: 65_536 }, { needles: 2, keyDepth: 3 });
      const { format, topic, style } = meta.key;
      const keys = messages.flatMap(({ content }) => {
        const found = /^Please write an? (.+?) about (.+) in the (\w+) style\.$/.exec(content);
        return found === null ? [] : [found.slice(1)];
      });
      const near = keys.filter((key) => [format, topic, style].filter((part, k) => key[k] === part).length === 2);
      expect(near.some((key) => key[0] !== format)).toBe(true);
      expect(near.some((key) => key[1] !== topic)).toBe(true);
      expect(near.some((key) => key[2] !== style)).toBe(true);
      // Two needles, a near-miss in the format and one in the style.
      expect(keys.filter((key) => key[1] === topic)).toHaveLength(4);
    }
  });

  it("shares the chat among the queries of a transcript", () => {
    const samples = [0, 1, 2].map((index) =>
      mrcr({ seed: 3, index, maxTokens: 65_536 }, { queriesPerTranscript: 3, needles: 2 }),
    );
    const chats = samples.map(({ messages }) => JSON.stringify(messages.slice(0, -1)));
    expect(new Set(chats).size).toBe(1);
    expect(new Set(samples.map(({ target }) => target)).size).toBe(3);
    expect(new Set(samples.map(({ meta }) => JSON.stringify(meta.key))).size).toBe(3);
    expect(new Set(samples.map(({ meta }) => meta.transcript)).size).toBe(1);
    expect(mrcr({ seed: 3, index: 3, maxTokens: 65_536 }, { queriesPerTranscript: 3 }).meta.transcript).toBe(1);
  });

  it("may have filler after the last needle, and asks for every ordinal", () => {
    const samples = Array.from({ length: 20 }, (_, index) =>
      mrcr({ seed: 4, index, maxTokens: 32_768 }, { needles: 4 }),
    );
    const last = samples.map(({ messages, meta }) => messages.at(-3)!.content === request(meta.key));
    expect(last.filter((isNeedle) => !isNeedle).length).toBeGreaterThan(10);
    expect(new Set(samples.map(({ meta }) => meta.ordinal))).toEqual(new Set([1, 2, 3, 4]));
  });

  it("refuses parameters outside their range", () => {
    const make = (params: object) => () => mrcr({ seed: 1, index: 0, maxTokens: 65_536 }, params);
    expect(make({ needles: 0 })).toThrow(/needles must be/);
    expect(make({ keyDepth: 4 })).toThrow(/keyDepth must be/);
    expect(make({ hashLength: 2 })).toThrow(/hashLength must be/);
    expect(make({ layout: "book" })).toThrow(/layout must be/);
  });
});

describe("ordinalWord", () => {
  it("counts as English does", () => {
    expect([1, 2, 10, 11, 12, 13, 21, 22, 33, 44].map(ordinalWord)).toEqual(
      "first second tenth 11th 12th 13th 21st 22nd 33rd 44th".split(" "),
    );
  });
});
