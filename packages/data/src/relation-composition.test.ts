import { FormatError, OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Batch, IGNORE_INDEX } from "./batch.js";
import { balancedDensity, RelationComposition } from "./relation-composition.js";
import type { Split } from "./sampled-task.js";

/** Does some k have A_ik and B_kj? Read off the tokens by the definition, without the generator's help. */
function answer(row: Int32Array, n: number, i: number, j: number): number {
  return Array.from({ length: n }, (_, k) => k).some((k) => row[i * n + k] === 1 && row[n * n + k * n + j] === 3)
    ? 1
    : 0;
}

function rows({ tokens, targets, batchSize, seqLen }: Batch): { tokens: Int32Array; targets: Int32Array }[] {
  return Array.from({ length: batchSize }, (_, b) => ({
    tokens: tokens.slice(b * seqLen, (b + 1) * seqLen),
    targets: targets.slice(b * seqLen, (b + 1) * seqLen),
  }));
}

function positiveRate(targets: Int32Array): number {
  const labels = targets.filter((target) => target !== IGNORE_INDEX);
  return labels.filter((label) => label === 1).length / labels.length;
}

describe("RelationComposition", () => {
  it("has 3n² positions and five tokens: A, B, then the queries, which alone carry loss", () => {
    const task = new RelationComposition({ batchSize: 8 });
    expect([task.seqLen, task.vocabSize]).toEqual([48, 5]);
    for (const { tokens, targets } of rows(task.next())) {
      expect(tokens.subarray(0, 16).every((token) => token === 0 || token === 1)).toBe(true);
      expect(tokens.subarray(16, 32).every((token) => token === 2 || token === 3)).toBe(true);
      expect(tokens.subarray(32).every((token) => token === 4)).toBe(true);
      expect(targets.subarray(0, 32).every((target) => target === IGNORE_INDEX)).toBe(true);
    }
  });

  it("labels as brute force does", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 7 }),
        fc.nat(),
        fc.constantFrom<Split>("train", "valid", "test"),
        (size, seed, split) => {
          const task = new RelationComposition({ size, seed, split, batchSize: 3 });
          for (const { tokens, targets } of rows(task.next())) {
            for (let i = 0; i < size; i++) {
              for (let j = 0; j < size; j++) {
                expect(targets[2 * size * size + i * size + j]).toBe(answer(tokens, size, i, j));
              }
            }
          }
        },
      ),
    );
  });

  it.each([2, 4, 5, 8])("is balanced for n = %i", (size) => {
    // 1 - (1 - p²)^n = 1/2
    expect(1 - (1 - balancedDensity(size) ** 2) ** size).toBeCloseTo(1 / 2, 12);
    const count = 2000;
    const { targets } = new RelationComposition({ size, batchSize: count }).next();
    // The n² answers of one sample are dependent; a sample as a whole is an independent draw with standard deviation at most 1/2.
    expect(Math.abs(positiveRate(targets) - 1 / 2)).toBeLessThan((5 * 0.5) / Math.sqrt(count));
  });

  it("gives a sample the same content whatever the batch size, and continues identically from a state", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 9 }),
        fc.nat(6),
        (size, batchSize, steps) => {
          const make = (batch: number) => new RelationComposition({ size, batchSize: batch, seed: 4 });
          const first = make(batchSize);
          for (let i = 0; i < steps; i++) first.next();
          const second = make(1);
          second.restore(JSON.parse(JSON.stringify(first.state())));
          const expected = rows(first.next());
          expect(expected.map(() => rows(second.next())[0])).toEqual(expected);
          expect(second.state()).toEqual(first.state());
        },
      ),
    );
  });

  it("draws train, valid and test from different streams: no common sample among thousands", () => {
    const seen = new Map<string, Split>();
    for (const split of ["train", "valid", "test"] as const) {
      // 5×5: 2^50 possible samples, so a repetition by chance is out of the question.
      const task = new RelationComposition({ size: 5, batchSize: 2000, split });
      for (const { tokens } of rows(task.next())) {
        const key = tokens.join("");
        expect(seen.get(key)).toBeUndefined();
        seen.set(key, split);
      }
    }
  });

  it("tags every place with tokens of its own on request", () => {
    const plain = new RelationComposition({ size: 3, batchSize: 4 }).next();
    const task = new RelationComposition({ size: 3, batchSize: 4, encoding: "tagged" });
    const tagged = task.next();
    expect(task.vocabSize).toBe(45);
    expect(tagged.targets).toEqual(plain.targets);
    // Token = 5 · place + kind, place = i·n + j inside its matrix.
    expect(tagged.tokens.map((token) => token % 5)).toEqual(plain.tokens);
    expect(Array.from(tagged.tokens.subarray(0, 27), (token) => Math.floor(token / 5))).toEqual(
      [0, 1, 2].flatMap(() => [0, 1, 2, 3, 4, 5, 6, 7, 8]),
    );
  });

  it("gives a finite set of the first samples", () => {
    const task = new RelationComposition({ batchSize: 400, split: "test" });
    const set = task.first(1000);
    const batches = [...set];
    expect(batches.map((batch) => batch.batchSize)).toEqual([400, 400, 200]);
    expect(batches.flatMap((batch) => [...batch.targets]).filter((t) => t !== IGNORE_INDEX).length).toBe(
      set.targetCount,
    );
    expect(batches[0]).toEqual(task.next());
    expect([...set]).toEqual(batches);
  });

  it("refuses bad options and states of another task", () => {
    expect(() => new RelationComposition({ size: 0, batchSize: 1 })).toThrow(OptionError);
    expect(() => new RelationComposition({ batchSize: 0 })).toThrow(OptionError);
    expect(() => new RelationComposition({ batchSize: 1, seed: -1 })).toThrow(OptionError);
    expect(() => new RelationComposition({ batchSize: 1, split: "dev" as Split })).toThrow(
      '[RelationComposition] split must be one of "train", "valid", "test"; received "dev".',
    );
    const state = new RelationComposition({ batchSize: 1, split: "valid" }).state();
    expect(() => new RelationComposition({ batchSize: 1 }).restore(state)).toThrow(FormatError);
    expect(() => new RelationComposition({ batchSize: 1 }).samples(-1, 1)).toThrow(OptionError);
  });
});
