import { FormatError, OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { IGNORE_INDEX } from "./batch.js";
import {
  functionCompositionTask,
  inductionTask,
  matchTask,
  parityTask,
  ReasoningTask,
  type ReasoningTaskDefinition,
} from "./reasoning-tasks.js";
import type { Split } from "./sampled-task.js";

interface Row {
  tokens: number[];
  targets: number[];
}

function rowsOf(definition: ReasoningTaskDefinition, count: number, seed = 0, split: Split = "train"): Row[] {
  const { tokens, targets, seqLen } = new ReasoningTask(definition, { batchSize: count, seed, split }).next();
  return Array.from({ length: count }, (_, b) => ({
    tokens: [...tokens.subarray(b * seqLen, (b + 1) * seqLen)],
    targets: [...targets.subarray(b * seqLen, (b + 1) * seqLen)],
  }));
}

/** Holds every sample against what the tokens alone say: `answers(tokens)` has a target for each position that has one. */
function labelled(definition: ReasoningTaskDefinition, answers: (tokens: number[]) => Map<number, number>): void {
  fc.assert(
    fc.property(fc.nat(), fc.constantFrom<Split>("train", "valid", "test"), (seed, split) => {
      for (const { tokens, targets } of rowsOf(definition, 8, seed, split)) {
        const right = answers(tokens);
        expect(targets).toEqual(tokens.map((_, t) => right.get(t) ?? IGNORE_INDEX));
        expect(right.size).toBe(definition.answers);
        expect(tokens.every((token) => token >= 0 && token < definition.vocabSize)).toBe(true);
      }
    }),
    { numRuns: 20 },
  );
}

function positiveRate(definition: ReasoningTaskDefinition, count: number): number {
  const labels = rowsOf(definition, count).flatMap(({ targets }) => targets.filter((target) => target >= 0));
  return labels.reduce((sum, label) => sum + label, 0) / labels.length;
}

const indices = (count: number) => Array.from({ length: count }, (_, i) => i);

describe("matchTask", () => {
  it.each([
    [2, 6, 8],
    [3, 7, 12],
    [3, 16, 160],
  ] as const)("labels Match%i as brute force does", (terms, count, modulus) => {
    labelled(matchTask({ count, modulus, terms }), (tokens) => {
      const x = tokens.slice(1, 1 + count);
      expect(tokens[0]).toBe(2 * modulus);
      expect(tokens.slice(1 + count)).toEqual(x.map((value) => modulus + value));
      const others = indices(count).flatMap((j) => (terms === 2 ? [[j]] : indices(count).map((k) => [j, k])));
      const matches = (i: number) =>
        others.some((js) => {
          const chosen = [i, ...js];
          const distinct = new Set(chosen).size === terms;
          return distinct && chosen.reduce((sum, j) => sum + x[j]!, 0) % modulus === 0;
        });
      return new Map(indices(count).map((i) => [1 + count + i, Number(matches(i))]));
    });
  });

  it.each([
    [16, 160, 0.485],
    [32, 720, 0.474],
  ])("has the positive rate of n = %i, M = %i", (count, modulus, rate) => {
    const samples = 1000;
    // The labels of a sample are dependent; samples aren't, and a share's standard deviation is at most 1/2.
    expect(Math.abs(positiveRate(matchTask({ count, modulus, terms: 3 }), samples) - rate)).toBeLessThan(
      (5 * 0.5) / Math.sqrt(samples),
    );
  });
});

describe("parityTask", () => {
  it.each([2, 3] as const)("answers with the parity of %i named places", (terms) => {
    const [bits, questions] = [7, 5];
    const all = indices(bits);
    const sets = all.flatMap((p) =>
      all
        .flatMap((q) => (terms === 2 ? [[p, q]] : all.map((r) => [p, q, r])))
        .filter((set) => set.every((place, i) => i === 0 || place > set[i - 1]!)),
    );
    const definition = parityTask({ bits, terms, questions });
    expect(definition.vocabSize).toBe(2 + (terms === 2 ? 21 : 35)); // 7 choose 2, 7 choose 3
    labelled(definition, (tokens) => {
      const answerOf = (token: number) => sets[token - 2]!.filter((place) => tokens[place] === 1).length % 2;
      return new Map(indices(questions).map((i) => [bits + i, answerOf(tokens[bits + i]!)]));
    });
  });

  it("is balanced", () => {
    const definition = parityTask({ bits: 16, terms: 3, questions: 4 });
    expect(Math.abs(positiveRate(definition, 2000) - 0.5)).toBeLessThan((5 * 0.5) / Math.sqrt(2000));
  });
});

describe("functionCompositionTask", () => {
  it.each([1, 2, 3])("answers with %i functions in a row", (functions) => {
    const size = 5;
    labelled(functionCompositionTask({ size, functions }), (tokens) => {
      const pairs = tokens.slice(0, functions * size);
      const apply = (k: number, x: number) => {
        const own = pairs.filter((token) => Math.floor(token / size) === k * size + x);
        expect(own).toHaveLength(1);
        return own[0]! % size;
      };
      return new Map(
        indices(size).map((x) => {
          expect(tokens[pairs.length + x]).toBe(functions * size ** 2 + x);
          return [pairs.length + x, indices(functions).reduce((value, k) => apply(k, value), x)];
        }),
      );
    });
  });
});

describe("inductionTask", () => {
  it.each([1, 2] as const)("asks for the values of keys of %i tokens", (keys) => {
    const [size, values, questions] = [4, 6, 3];
    labelled(inductionTask({ keys, size, values, questions }), (tokens) => {
      const given = (keys + 1) * size ** keys;
      const table = new Map<string, number>();
      for (let at = 0; at < given; at += keys + 1) {
        const key = tokens.slice(at, at + keys);
        expect(key.every((token, i) => Math.floor(token / size) === i)).toBe(true);
        expect(table.has(key.join())).toBe(false);
        table.set(key.join(), tokens[at + keys]!);
      }
      expect(table.size).toBe(size ** keys);
      const asked = indices(questions).map((i) => tokens.slice(given + keys * i, given + keys * (i + 1)).join());
      expect(new Set(asked).size).toBe(questions);
      return new Map(asked.map((key, i) => [given + keys * (i + 1) - 1, table.get(key)!]));
    });
  });

  it("gives every part of a pair several values", () => {
    const size = 2; // with two values, a table of four is often unfit
    for (const { tokens } of rowsOf(inductionTask({ keys: 2, size, values: 2, questions: 1 }), 500)) {
      const triples = indices(4).map((i) => tokens.slice(3 * i, 3 * i + 3));
      for (const place of [0, 1]) {
        for (const token of new Set(triples.map((triple) => triple[place]))) {
          const found = triples.filter((triple) => triple[place] === token).map(([, , value]) => value);
          expect(new Set(found).size).toBe(2);
        }
      }
    }
  });
});

describe("ReasoningTask", () => {
  const definition = parityTask({ bits: 40, terms: 2, questions: 3 });

  it("gives a sample the same content whatever the batch size, and continues identically from a state", () => {
    const first = new ReasoningTask(definition, { batchSize: 3, seed: 4 });
    first.next();
    const second = new ReasoningTask(definition, { batchSize: 1, seed: 4 });
    second.restore(JSON.parse(JSON.stringify(first.state())));
    const expected = first.next();
    expect(Int32Array.from(indices(3).flatMap(() => [...second.next().tokens]))).toEqual(expected.tokens);
    expect(second.state()).toEqual(first.state());
    expect(second.samples(3, 3)).toEqual(expected);
  });

  it("draws train, valid and test from different streams: no common sample among thousands", () => {
    const seen = new Set<string>();
    const splits: Split[] = ["train", "valid", "test"];
    for (const split of splits) for (const { tokens } of rowsOf(definition, 1000, 0, split)) seen.add(tokens.join());
    expect(seen.size).toBe(3000); // 2^40 bits and places: a repetition by chance is out of the question
  });

  it("gives a finite set of the first samples", () => {
    const task = new ReasoningTask(definition, { batchSize: 4, split: "test" });
    const set = task.first(10);
    expect([...set].map(({ batchSize }) => batchSize)).toEqual([4, 4, 2]);
    expect(set.targetCount).toBe(30);
    expect([...set][0]).toEqual(task.next());
  });

  it("refuses bad options and states of another task", () => {
    expect(() => matchTask({ count: 2, modulus: 5, terms: 3 })).toThrow("[matchTask] count must be");
    expect(() => matchTask({ count: 8, modulus: 5, terms: 4 as 3 })).toThrow(OptionError);
    expect(() => parityTask({ bits: 8, terms: 1 as 2, questions: 1 })).toThrow("[parityTask] terms must be 2 or 3");
    expect(() => functionCompositionTask({ size: 1, functions: 2 })).toThrow(OptionError);
    expect(() => inductionTask({ keys: 1, size: 4, values: 4, questions: 5 })).toThrow(
      "at most the 4 keys; received 5",
    );
    expect(() => inductionTask({ keys: 3 as 2, size: 4, values: 4, questions: 1 })).toThrow(OptionError);
    expect(() => new ReasoningTask(definition, { batchSize: 0 })).toThrow(OptionError);
    const long = functionCompositionTask({ size: 200, functions: 170 });
    expect(() => new ReasoningTask(long, { batchSize: 1 })).toThrow("[ReasoningTask] expected at most 16384 tokens");
    const wide = { ...definition, vocabSize: 2 ** 31 + 1 };
    expect(() => new ReasoningTask(wide, { batchSize: 1 })).toThrow("of 2³¹ different ones");
    const state = new ReasoningTask(parityTask({ bits: 8, terms: 2, questions: 3 }), { batchSize: 1 }).state();
    expect(() => new ReasoningTask(definition, { batchSize: 1 }).restore(state)).toThrow(FormatError);
  });
});
