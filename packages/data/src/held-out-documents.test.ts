import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { IGNORE_INDEX } from "./batch.js";
import { documentSet } from "./documents.js";
import { heldOutDocuments } from "./held-out-documents.js";
import { objectivePresets } from "./objectives.js";
import { Random } from "./random.js";

const size = { seqLen: 40, batchSize: 3 };
const special = { sentinels: { first: 999, count: 40 }, modes: { R: 900, S: 901, X: 902 }, eos: 800, padding: 801 };

/** Documents of up to 70 tokens, which tell their number. */
function corpus(count: number, seed = 1) {
  const random = new Random(seed, "test/held-out");
  return documentSet(
    Array.from({ length: count }, (_, d) => Array.from({ length: random.integer(1, 70) }, (_, i) => 10 * d + (i % 10))),
  );
}

describe("heldOutDocuments", () => {
  it("predicts every token but the first of each sequence once, and the end of every document", async () => {
    const documents = documentSet([[1, 2, 3], [4], Array.from({ length: 50 }, (_, i) => 10 + i)]);
    const set = await heldOutDocuments(documents, { ...size, eos: 800 });
    const predicted = set.examples.map(({ targets }) => [...targets].filter((target) => target !== IGNORE_INDEX));
    // 39 tokens of a document and its end fit into a row: the long one becomes 39 and 11 tokens.
    const long = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
    expect(predicted.toSorted((a, b) => a[0]! - b[0]!)).toEqual([
      [2, 3, 800],
      [...long(11, 49)],
      [...long(50, 60), 800],
      [800],
    ]);
    expect(set.targetCount).toBe(predicted.flat().length);
    const batches = [...set];
    const inBatches = batches.flatMap(({ targets }) => [...targets].filter((target) => target !== IGNORE_INDEX));
    expect(inBatches).toEqual(predicted.flat());
  });

  it("is the same whenever it is made and walked, whatever the batch size", async () => {
    const mixtures = fc.constantFrom(...Object.values(objectivePresets));
    await fc.assert(
      fc.asyncProperty(mixtures, fc.integer({ min: 1, max: 7 }), async (objectives, batchSize) => {
        const options = { ...size, ...special, objectives, seed: 3 };
        const one = await heldOutDocuments(corpus(30), options);
        const other = await heldOutDocuments(corpus(30), { ...options, batchSize });
        const tokens = (set: typeof one) => [...set].flatMap((batch) => [...batch.tokens]);
        expect(tokens(one)).toEqual(tokens(one));
        expect(tokens(other)).toEqual(tokens(one));
        for (const batch of other) expect(batch.extras!.documents!.shape).toEqual([batch.batchSize, size.seqLen]);
      }),
      { numRuns: 15 },
    );
  });

  it("reads no more documents than its rows need", async () => {
    let read = 0;
    const whole = corpus(500);
    const counted = {
      ...whole,
      document(index: number) {
        read += 1;
        return whole.document(index);
      },
    };
    const set = await heldOutDocuments(counted, { ...size, ...special, objectives: "ul2", maxRows: 4 });
    expect([...set].map(({ batchSize }) => batchSize)).toEqual([3, 1]);
    expect(read).toBeLessThan(40);
  });

  it("leaves out what has no target, and may have no row", async () => {
    const set = await heldOutDocuments(documentSet([[1], [2]]), size);
    expect([set.targetCount, [...set].length]).toEqual([0, 0]);
  });

  it.each([
    [{ seqLen: 1 }, "seqLen must be"],
    [{ batchSize: 0 }, "batchSize must be"],
    [{ maxRows: 0 }, "maxRows must be"],
    [{ objectives: "ul2" as const }, "needs at least 2 sentinels"],
  ])("refuses %j", async (options, message) => {
    await expect(heldOutDocuments(corpus(2), { ...size, ...options })).rejects.toThrow(message);
  });
});
