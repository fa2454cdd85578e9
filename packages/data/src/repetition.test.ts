import { OptionError } from "@llmeff/native/errors";
import { describe, expect, it } from "vitest";
import { Random } from "./random.js";
import { drawPassages, RepetitionCounter, repetitionBins } from "./repetition.js";

describe("drawPassages", () => {
  const documents = [7, 3, 0, 12, 4].map((length, d) => Int32Array.from({ length }, (_, i) => 100 * d + i));

  it("draws all places of few, with their tokens", async () => {
    const passages = await drawPassages(documents, 100, { length: 4 });
    expect(passages.map(({ document, start }) => [document, start])).toEqual([
      ...[0, 1, 2, 3].map((start) => [0, start]),
      ...Array.from({ length: 9 }, (_, start) => [3, start]),
      [4, 0],
    ]);
    expect([...passages[5]!.tokens]).toEqual([301, 302, 303, 304]);
  });

  it("draws each place equally often over the seeds, none twice", async () => {
    const counts = new Map<string, number>();
    const [seeds, count, places] = [600, 5, 14];
    for (let seed = 0; seed < seeds; seed++) {
      const passages = await drawPassages(documents, count, { length: 4, seed });
      const names = passages.map(({ document, start }) => `${document} ${start}`);
      expect(new Set(names).size).toBe(count);
      for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    expect(counts.size).toBe(places);
    const p = count / places;
    for (const drawn of counts.values())
      expect(Math.abs(drawn - seeds * p)).toBeLessThan(5 * Math.sqrt(seeds * p * (1 - p)));
  });

  it("draws the same again, and others with another seed", async () => {
    const at = async (seed: number) =>
      (await drawPassages(documents, 3, { length: 4, seed })).map(({ start }) => start);
    expect(await at(1)).toEqual(await at(1));
    const some = await Promise.all([1, 2, 3, 4].map(at));
    expect(new Set(some.map(String)).size).toBeGreaterThan(1);
  });
});

describe("RepetitionCounter", () => {
  it("counts all places, in and over documents, and equal passages alike", () => {
    const counter = new RepetitionCounter([
      [1, 1],
      [1, 2],
      [9, 9],
      [1, 1],
    ]);
    counter.add([1, 1, 1, 2]); // 1 1 at 0 and 1, 1 2 at 2
    counter.add([2, 1]);
    counter.add([1, 2]);
    expect([...counter.counts()]).toEqual([2, 2, 0, 2]);
  });

  it("finds passages of 100 tokens as often as they were put into a text", async () => {
    const random = new Random(1, "test/repetition");
    const passage = () => Int32Array.from({ length: 100 }, () => random.integer(0, 50));
    const passages = Array.from({ length: 5 }, passage);
    const documents = passages.flatMap((one, i) =>
      Array.from({ length: 2 ** i }, () => [...passage(), ...one, ...passage()]),
    );
    const counter = new RepetitionCounter(passages);
    for (const document of documents) counter.add(document);
    expect([...counter.counts()]).toEqual([1, 2, 4, 8, 16]);
    const drawn = await drawPassages(documents, 50, { seed: 2 });
    const own = new RepetitionCounter(drawn.map(({ tokens }) => tokens));
    for (const document of documents) own.add(document);
    expect(Math.min(...own.counts())).toBeGreaterThanOrEqual(1);
  });

  it("refuses passages of several lengths, and none", () => {
    expect(() => new RepetitionCounter([])).toThrow(OptionError);
    expect(() => new RepetitionCounter([[1], [1, 2]])).toThrow("passage 1 has 2 tokens, the first 1");
  });
});

describe("repetitionBins", () => {
  it("doubles the width of its bins, leaving out what is empty or never occurs", () => {
    expect(repetitionBins([1, 3, 2, 0, 17, 4, 1])).toEqual({
      "": [
        { from: 1, to: 2, members: [0, 6] },
        { from: 2, to: 3, members: [2] },
        { from: 3, to: 5, members: [1, 5] },
        { from: 17, to: Number.POSITIVE_INFINITY, members: [4] },
      ],
    });
  });

  it("takes no more than asked for of a bin, the same again, and keeps groups apart", () => {
    const counts = Array.from({ length: 40 }, (_, i) => 1 + (i % 2));
    const groups = Array.from({ length: 40 }, (_, i) => (i < 10 ? "de" : "en"));
    const bins = repetitionBins(counts, { groups, most: 6, seed: 1 });
    expect(bins.de!.map(({ members }) => members.length)).toEqual([5, 5]);
    expect(bins.en!.map(({ members }) => members.length)).toEqual([6, 6]);
    for (const { from, members } of bins.en!) expect(members.every((i) => i >= 10 && counts[i] === from)).toBe(true);
    expect(repetitionBins(counts, { groups, most: 6, seed: 1 })).toEqual(bins);
    expect(repetitionBins(counts, { groups, most: 6, seed: 2 })).not.toEqual(bins);
  });

  it("takes other borders, and refuses those that don't ascend", () => {
    expect(repetitionBins([1, 5, 100], { borders: [2, 50] })[""]!.map(({ members }) => members)).toEqual([[1], [2]]);
    for (const borders of [[], [0], [2, 2]])
      expect(() => repetitionBins([1], { borders })).toThrow("borders must ascend");
  });
});
