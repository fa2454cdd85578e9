import { OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { IGNORE_INDEX } from "./batch.js";
import { sequentialWindows } from "./sequential-windows.js";

describe("sequentialWindows", () => {
  it("fills up the last window with positions that carry no loss", () => {
    // 6 tokens, 5 to predict: windows [0 1 2 3] and [4 5].
    const set = sequentialWindows(Int32Array.of(10, 11, 12, 13, 14, 15), { seqLen: 4, batchSize: 8 });
    const [batch, ...rest] = [...set];
    expect(rest).toEqual([]);
    expect(batch).toEqual({
      tokens: Int32Array.of(10, 11, 12, 13, 14, 0, 0, 0),
      targets: Int32Array.of(11, 12, 13, 14, 15, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX),
      batchSize: 2,
      seqLen: 4,
    });
    expect(set.targetCount).toBe(5);
  });

  it("predicts every token but the first exactly once, in order, however often it is walked", () => {
    const size = fc.integer({ min: 1, max: 12 });
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 200 }), size, size, (length, seqLen, batchSize) => {
        const tokens = Uint16Array.from({ length }, (_, i) => i);
        const set = sequentialWindows(tokens, { seqLen, batchSize });
        for (let walk = 0; walk < 2; walk++) {
          const targets = [...set].flatMap((batch) => [...batch.targets].filter((target) => target !== IGNORE_INDEX));
          expect(targets).toEqual([...tokens.subarray(1)]);
          expect(set.targetCount).toBe(targets.length);
        }
      }),
    );
  });

  it("stops after maxWindows", () => {
    const set = sequentialWindows(new Int32Array(100), { seqLen: 10, batchSize: 2, maxWindows: 3 });
    expect([...set].map((batch) => batch.batchSize)).toEqual([2, 1]);
    expect(set.targetCount).toBe(30);
  });

  it("refuses bad sizes and a corpus without anything to predict", () => {
    expect(() => sequentialWindows(new Int32Array(1), { seqLen: 4, batchSize: 1 })).toThrow(OptionError);
    expect(() => sequentialWindows(new Int32Array(9), { seqLen: 0, batchSize: 1 })).toThrow(
      "[sequentialWindows] seqLen",
    );
    expect(() => sequentialWindows(new Int32Array(9), { seqLen: 1, batchSize: 1, maxWindows: 0 })).toThrow(OptionError);
  });
});
