import { OptionError } from "@llmeff/native/errors";
import { describe, expect, it } from "vitest";
import { type ControlTokenOptions, tagDocuments } from "./control-tokens.js";
import { DocumentBatches } from "./document-batches.js";
import { documentSet, shuffledDocuments } from "./documents.js";
import { Random } from "./random.js";

const [low, middle, high] = [900, 901, 902];
const random = new Random(1, "test/control");
const count = 400;
const documents = documentSet(Array.from({ length: count }, (_, d) => Array.from({ length: 5 + (d % 7) }, () => d)));
const scores = Array.from({ length: count }, (_, d) => (d % 10 === 9 ? Number.NaN : random.uniform()));
const options = { tokens: [low, middle, high], borders: [0.2, 0.6], fraction: 0.3, seed: 4 };

describe("tagDocuments", () => {
  const tagged = tagDocuments(documents, scores, options);
  const first = (index: number) => (tagged.document(index) as Int32Array)[0]!;
  const isTagged = (index: number) => first(index) >= low;

  it("puts the bucket's token before some documents, which are otherwise as they were", () => {
    let more = 0;
    for (let i = 0; i < count; i++) {
      const was = [...(documents.document(i) as Int32Array)];
      const is = [...(tagged.document(i) as Int32Array)];
      if (!isTagged(i)) {
        expect(is).toEqual(was);
        continue;
      }
      more += 1;
      const score = scores[i]!;
      expect(is).toEqual([score >= 0.6 ? high : score >= 0.2 ? middle : low, ...was]);
    }
    expect([tagged.count, tagged.tokenCount]).toEqual([count, documents.tokenCount + more]);
    const scored = scores.filter((score) => !Number.isNaN(score)).length;
    expect(Math.abs(more - 0.3 * scored)).toBeLessThan(5 * Math.sqrt(scored * 0.3 * 0.7));
  });

  it("tags none without a score, all that have one with fraction 1, and others with another seed", () => {
    for (let i = 9; i < count; i += 10) expect(isTagged(i)).toBe(false);
    const all = tagDocuments(documents, scores, { ...options, fraction: 1 });
    expect(all.tokenCount - documents.tokenCount).toBe(scores.filter((score) => !Number.isNaN(score)).length);
    const other = tagDocuments(documents, scores, { ...options, seed: 5 });
    expect(other.fingerprint).not.toBe(tagged.fingerprint);
    expect(tagDocuments(documents, scores, options).fingerprint).toBe(tagged.fingerprint);
  });

  it("leaves the token at the start of sequences of every objective, where nothing hides it", async () => {
    const data = new DocumentBatches(shuffledDocuments(tagDocuments(documents, scores, { ...options, fraction: 1 })), {
      ...{ seqLen: 64, batchSize: 20, objectives: "ul2", sentinels: { first: 800, count: 30 } },
    });
    const { tokens, extras } = await data.next();
    let begun = 0;
    for (const [at, id] of tokens.entries()) {
      if (id < low) continue;
      expect(extras!.positions!.data[at]).toBe(0);
      begun += 1;
    }
    expect(begun).toBeGreaterThan(50);
  });

  it("tags documents that are read from a disk", async () => {
    const onDisk = { ...documents, document: async (i: number) => documents.document(i) };
    const set = tagDocuments(onDisk, scores, options);
    for (const i of [0, 1, 2, 3]) expect(await set.document(i)).toEqual(tagged.document(i));
  });

  it("refuses what doesn't fit", () => {
    const refuse = (given: Partial<ControlTokenOptions>, message: string, of: number[] = scores) => {
      expect(() => tagDocuments(documents, of, { ...options, ...given })).toThrow(OptionError);
      expect(() => tagDocuments(documents, of, { ...options, ...given })).toThrow(message);
    };
    refuse({}, "a score for each of 400 documents; received 1", [0.5]);
    refuse({ tokens: [] }, "ids of at least one bucket");
    refuse({ tokens: [1, -1, 2] }, "ids of at least one bucket");
    refuse({ borders: [0.5] }, "3 tokens need 2 ascending borders; received [0.5]");
    refuse({ borders: [0.5, 0.5] }, "ascending borders");
    refuse({ fraction: 0 }, "fraction must be in (0, 1]; received 0");
  });
});
