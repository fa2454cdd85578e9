import { type Batch, DocumentBatches, documentSet, IGNORE_INDEX, shuffledDocuments, windowsAt } from "@llmeff/data";
import { OptionError, ones, tensor } from "@llmeff/tensor";
import type { TrainBatch } from "@llmeff/train";
import { describe, expect, it } from "vitest";
import { seqLen, teacherOf, text } from "../test/setup.js";
import { type Hardness, hardnessOf, scoreSequences, type TokenStatistics, tokenStatistics } from "./scoring.js";

const statistics: TokenStatistics = {
  losses: Float64Array.of(4, 1, 9, 2, 3),
  ranks: Float64Array.of(5, 0, 20, 1, 10),
  entropies: Float64Array.of(1, 1, 2, 1, 0),
};

describe("hardnessOf", () => {
  it.each([
    [{ kind: "filteredMedian" }, 2], // of 1, 2, 4: ranks below 10
    [{ kind: "filteredMedian", k: 11 }, 2.5], // of 1, 2, 3, 4
    [{ kind: "filteredMedian", k: 1 }, 1],
    [{ kind: "filteredMean" }, 7 / 3],
    [{ kind: "filteredMean", k: 50, trim: 0.2 }, 3], // of 2, 3, 4
    [{ kind: "median" }, 3],
    [{ kind: "mean" }, 3.8],
    [{ kind: "entropy" }, 1],
  ] as [Hardness, number][])("of %j is %d", (hardness, wanted) => {
    expect(hardnessOf(statistics, hardness)).toBeCloseTo(wanted, 14);
  });

  it("is −∞ where nothing counts, and by chance in 0..1 as a control", () => {
    const hopeless = { ...statistics, ranks: statistics.ranks.fill(99, 0, 0).map(() => 99) };
    expect(hardnessOf(hopeless)).toBe(Number.NEGATIVE_INFINITY);
    const control = (index: number) => hardnessOf(statistics, { kind: "random", seed: 2 }, index);
    expect(new Set([control(0), control(1), control(0)]).size).toBe(2);
    expect(() => hardnessOf(statistics, { kind: "filteredMedian", k: 0 })).toThrow(OptionError);
    expect(() => hardnessOf(statistics, { kind: "max" } as never)).toThrow("kind must be one of");
    expect(() => hardnessOf(statistics, { kind: "filteredMean", trim: 0.5 })).toThrow("trim must be in [0, 0.5)");
  });
});

describe("tokenStatistics", () => {
  it("leaves out positions without a target, and counts tokens strictly before one", async () => {
    const logits = tensor(Float64Array.of(1, 1, 0, 1, 1, 0, 1, 1, 0), { shape: [3, 3] });
    const [own] = await tokenStatistics({ logits }, Int32Array.of(1, -100, 2), 1);
    expect([...own!.ranks]).toEqual([0, 2]);
    const total = Math.log(2 * Math.E + 1);
    expect(own!.losses[0]).toBeCloseTo(total - 1, 12);
    expect(own!.losses[1]).toBeCloseTo(total, 12);
  });
});

describe("scoreSequences", () => {
  const never = Number.NEGATIVE_INFINITY;
  const windows = () => windowsAt(text(), [0, 50, 100, 150, 200], { seqLen, batchSize: 2 });

  it("scores every sequence in order, whatever the batches", async () => {
    const scorer = teacherOf();
    const scores = await scoreSequences(scorer, windows(), { hardness: { kind: "mean" } });
    const one = await scoreSequences(scorer, windowsAt(text(), [100], { seqLen, batchSize: 1 }), {
      hardness: { kind: "mean" },
    });
    expect(scores).toHaveLength(5);
    expect(scores[2]).toBeCloseTo(one[0]!, 5);
  });

  it("scores the difference from another checkpoint", async () => {
    const [early, final] = [teacherOf(1), teacherOf(2)];
    const options = { hardness: { kind: "mean" } } as const;
    const [a, b] = [await scoreSequences(early, windows(), options), await scoreSequences(final, windows(), options)];
    const both = await scoreSequences(early, windows(), { ...options, minus: final });
    expect([...both]).toEqual([...a].map((score, i) => score - b[i]!));
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(scoreSequences(early, windows(), { signal })).rejects.toThrow("enough");
  });

  it("has no difference where nothing counts for one of them", async () => {
    // Of three tokens one has the first place, another the last.
    const naming = (...scores: number[]) => ({
      model: {
        hidden: (_: unknown, { tokens }: TrainBatch) => ones([...tokens.shape, 1]),
        outputWeight: () => tensor(scores, { shape: [3, 1] }),
      },
      params: {},
    });
    const batch = { tokens: Int32Array.of(0, 0), targets: Int32Array.of(1, 2), batchSize: 2, seqLen: 1 };
    const options = { hardness: { kind: "filteredMedian", k: 2 } } as const;
    const [early, final] = [naming(1, 2, 0), naming(0, 1, 2)];
    const scores = await scoreSequences(early, [batch], { ...options, minus: final });
    expect([...scores]).toEqual([expect.closeTo(-1, 6), never]);
    expect([...(await scoreSequences(final, [batch], { ...options, minus: early }))]).toEqual([
      expect.closeTo(1, 6),
      never,
    ]);
  });

  it("lets the scorer see packed documents apart", async () => {
    const scorer = teacherOf();
    const hardness = { kind: "mean" } as const;
    const parts = [text(20).subarray(0, 6), text(20).subarray(6, 14)];
    const rows = (documents: Uint8Array[]) =>
      new DocumentBatches(shuffledDocuments(documentSet(documents)), { seqLen: 14, batchSize: 1 }).next();
    const [both] = await scoreSequences(scorer, [await rows(parts)], { hardness });
    const alone = await scoreSequences(scorer, windowsOf(parts), { hardness });
    // Of 6 and 8 tokens 5 and 7 are predicted.
    expect(both).toBeCloseTo((5 * alone[0]! + 7 * alone[1]!) / 12, 5);
  });
});

/** Each document as a row of its own. */
function windowsOf(documents: readonly Uint8Array[]): Batch[] {
  return documents.map((document) => {
    const targets = Int32Array.of(...document.subarray(1), IGNORE_INDEX);
    return { tokens: Int32Array.from(document), targets, batchSize: 1, seqLen: document.length };
  });
}
