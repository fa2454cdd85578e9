import { Random } from "@llmeff/data";
import { OptionError } from "@llmeff/native/errors";
import { describe, expect, it } from "vitest";
import { mrcrOpenAi } from "../score/mrcr.js";
import { ratio } from "../score/sequence-matcher.js";
import { idkSummary } from "./idk-summary.js";
import { aboveFloor, guessLatentList, latentListChance, mrcrFloors } from "./noise-floors.js";

describe("mrcrFloors", () => {
  const replies = ["Roses are red.", "The sea is wide.", "An owl sat in a tree."];
  const answer = { hash: "aX3kQ9", reply: replies[0]! };

  it("is the mean similarity of all replies to the right one", () => {
    const off = { autojunk: false };
    const [, second, third] = replies.map((reply) => ratio(answer.reply, reply, off));
    expect(mrcrFloors(answer, { all: replies, relevant: replies.slice(0, 2) })).toEqual({
      floorAll: expect.closeTo((1 + second! + third!) / 3, 12),
      floorRelevant: expect.closeTo((1 + second!) / 2, 12),
    });
  });

  it("takes the scorer that the score comes from", () => {
    const { floorAll } = mrcrFloors(answer, { all: [replies[1]!], relevant: [answer.reply] }, { scorer: mrcrOpenAi });
    expect(floorAll).toBe(ratio(replies[1]!, answer.reply));
  });

  it("draws from many replies, near the mean over all", () => {
    const all = Array.from({ length: 500 }, (_, i) => `Reply ${i} about ${"abcdefghij".repeat(1 + (i % 7))}.`);
    const exact = mrcrFloors({ hash: "h", reply: all[0]! }, { all, relevant: all }, { draws: 500 });
    const drawn = mrcrFloors({ hash: "h", reply: all[0]! }, { all, relevant: all }, { draws: 100, seed: 5 });
    expect(exact.floorAll).toBe(exact.floorRelevant);
    expect(Math.abs(drawn.floorAll - exact.floorAll)).toBeLessThan(0.1);
  });

  it("refuses a transcript without replies", () => {
    expect(() => mrcrFloors(answer, { all: [], relevant: replies })).toThrow(OptionError);
    expect(() => mrcrFloors(answer, { all: replies, relevant: replies }, { draws: 0 })).toThrow(OptionError);
  });
});

describe("aboveFloor", () => {
  it("is 0 at the floor and 1 for a perfect score", () => {
    expect([aboveFloor(0.2, 0.2), aboveFloor(0.6, 0.2), aboveFloor(1, 0.2)]).toEqual([0, expect.closeTo(0.5, 12), 1]);
    expect(() => aboveFloor(1, 1)).toThrow(OptionError);
  });
});

describe("latentListChance", () => {
  it("knows a program of one number", () => {
    // The only subset of [7] is itself.
    const program = { core: ["a = [7]", "a.reverse()", "sum(a)"], view: "sum", target: "7" } as const;
    expect(latentListChance([program])).toBe(1);
  });

  it("is the mean over all subsets for a small list", () => {
    // Sizes 1 and 2 equally likely: [1] or [3] with 1/4 each, [1, 3] with 1/2. Their sums against 4 score 1/4, 3/4 and 1.
    const program = { core: ["a = [1, 3]", "a.reverse()", "sum(a)"], view: "sum", target: "4" } as const;
    expect(latentListChance([program], { draws: 20_000 })).toBeCloseTo((1 / 4 + 3 / 4) / 4 + 1 / 2, 2);
    expect(latentListChance([program])).toBe(latentListChance([program]));
  });

  it("guesses views of numbers of the program in their order", () => {
    const random = new Random(1, "test");
    const core = ["a = [1, 2]", "a.append(30)", "print(a[0:1])"];
    for (let i = 0; i < 100; i++) {
      const guess = JSON.parse(guessLatentList({ core, view: "print" }, random)) as number[];
      expect(guess).toEqual([1, 2, 30].filter((value) => guess.includes(value)));
      expect(guess.length).toBeGreaterThan(0);
    }
  });

  it("refuses no programs and programs without numbers", () => {
    expect(() => latentListChance([])).toThrow(OptionError);
    expect(() => latentListChance([{ core: ["len(a)"], view: "len", target: "0" }])).toThrow(OptionError);
  });
});

describe("idkSummary", () => {
  it("tells guessing from refusing", () => {
    const summary = idkSummary([
      { answerable: true, target: "B", chosen: "B" },
      { answerable: true, target: "A", chosen: "D" },
      { answerable: false, target: "D", chosen: "D" },
      { answerable: false, target: "D", chosen: "C" },
      { answerable: false, target: "D", chosen: null },
    ]);
    expect(summary.all.mean).toBe(2 / 5);
    expect(summary.answerable.mean).toBe(1 / 2);
    expect(summary.unanswerable.mean).toBe(1 / 3);
    expect(summary.overAnswering).toMatchObject({ mean: 1 / 3, n: 3 });
    expect(idkSummary([]).all.mean).toBeNull();
  });
});
