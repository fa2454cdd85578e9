import { OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { documentMask, packDocuments, packedRow, packingMethods, paddingWaste, splitDocument } from "./packing.js";

describe("packDocuments", () => {
  it("puts a document into the fullest row with room, when fitting best", () => {
    // 6 and 5 open rows with 4 and 5 places left of 10; 4 fits both, and the first exactly.
    expect(packDocuments([5, 6, 4], 10, "bestFit")).toEqual([[1, 2], [0]]);
    // firstFit takes the first with room: 5 goes with 5, 4 to the first.
    expect(packDocuments([5, 5, 4, 3], 9, "firstFit")).toEqual([
      [0, 2],
      [1, 3],
    ]);
  });

  it("places every document once and overfills no row", () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 60 });
    fc.assert(
      fc.property(lengths, fc.constantFrom(...packingMethods), (lengths, method) => {
        const rows = packDocuments(lengths, 20, method);
        expect(rows.flat().sort((a, b) => a - b)).toEqual([...lengths.keys()]);
        for (const row of rows) {
          const used = row.reduce((sum, document) => sum + lengths[document]!, 0);
          expect(used).toBeGreaterThan(0);
          expect(used).toBeLessThanOrEqual(20);
        }
        const total = lengths.reduce((a, b) => a + b, 0);
        expect(paddingWaste(rows, lengths, 20)).toBeCloseTo(rows.length === 0 ? 0 : 1 - total / (20 * rows.length), 12);
      }),
    );
  });

  it("refuses documents that are empty or longer than a row, and unknown methods", () => {
    expect(() => packDocuments([3, 12], 10)).toThrow(
      "[packDocuments] document 1 has 12 tokens, a row 10. Split longer documents first.",
    );
    expect(() => packDocuments([3, 0], 10)).toThrow(OptionError);
    expect(() => packDocuments([3], 10, "ffd" as never)).toThrow("must be one of greedy, firstFit, bestFit");
  });
});

describe("packedRow", () => {
  it("lets positions go on where a document does", () => {
    const { positions, documents } = packedRow([2, 3], 6, { firstPositions: [4, 0] });
    expect([...positions]).toEqual([4, 5, 0, 1, 2, 0]);
    expect([...documents]).toEqual([0, 0, 1, 1, 1, -1]);
  });

  it("is all padding without documents", () => {
    const row = packedRow([], 2);
    expect([...row.documents, ...row.hasNext, ...row.cumulativeLengths]).toEqual([-1, -1, 0, 0, 0]);
    expect([...documentMask(row.documents)]).toEqual([1, 0, 1, 1]);
  });

  it("refuses more tokens than places", () => {
    expect(() => packedRow([2, 3], 4)).toThrow("[packedRow] the first 2 documents have 5 tokens, the row 4.");
  });
});

describe("splitDocument", () => {
  it("cuts in full rows and a rest", () => {
    expect(splitDocument(7, 3)).toEqual([
      [0, 3],
      [3, 6],
      [6, 7],
    ]);
    expect(splitDocument(0, 3)).toEqual([]);
  });
});
