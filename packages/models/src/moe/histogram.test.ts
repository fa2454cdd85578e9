import { captureStep, memory, resetPeakMemory, scope, sync, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { histogram } from "./histogram.js";

function plain(ids: Int32Array, count: number): number[] {
  const counts = new Array<number>(count).fill(0);
  for (const id of ids) counts[id]!++;
  return counts;
}

/** Of which the first ids are the most frequent. */
const skewed = (length: number, count: number) =>
  Int32Array.from({ length }, (_, i) => Math.floor(count * (((i * 7919) % 10_007) / 10_007) ** 3));

const found = (ids: Int32Array, count: number) => scope(() => Array.from(histogram(tensor(ids), count).dataSync()));

describe("histogram", () => {
  it("counts what is there, by comparing and by digits", () => {
    // 33 kinds are written by digits to the base 6: 0, 5, 6 and 32 are (0, 0), (0, 5), (1, 0) and (5, 2).
    const ids = Int32Array.of(0, 32, 5, 6, 32, 32);
    for (const count of [33, 40, 256]) {
      const wanted = new Array(count).fill(0);
      [wanted[0], wanted[5], wanted[6], wanted[32]] = [1, 1, 1, 3];
      expect(found(ids, count)).toEqual(wanted);
    }
    expect(found(Int32Array.of(1, 1, 0), 2)).toEqual([1, 2]);
    expect(found(Int32Array.of(0, 0), 1)).toEqual([2]);
    expect(found(new Int32Array(0), 3)).toEqual([0, 0, 0]);
    expect(found(new Int32Array(0), 64)).toEqual(new Array(64).fill(0));
  });

  it.each([1, 8, 31, 32, 33, 36, 37, 128, 255, 256, 1000])("counts ids of %i kinds, whatever their number", (count) => {
    for (const length of [1, 1023, 1024, 1025, 65_535, 65_536, 65_537, 140_000]) {
      const ids = skewed(length, count);
      expect(found(ids, count), `${length} ids`).toEqual(plain(ids, count));
    }
    expect(found(new Int32Array(70_000).fill(count - 1), count).at(-1)).toBe(70_000);
  });

  it("takes memory for the ids and a block of them, not for their comparison with all kinds", async () => {
    const [A, E] = [2 ** 19, 256];
    using ids = tensor(skewed(A, E), { shape: [A / 8, 8] });
    await sync();
    resetPeakMemory();
    const { liveBytes } = memory();
    using counts = histogram(ids, E);
    await counts.data();
    const taken = memory().peakBytes - liveBytes;
    // Comparing all would take 128 MiB of bits that are bytes, and 512 MiB of float32.
    expect(taken).toBeLessThan(24 * 2 ** 20);
  });

  it("is captured in a step", () => {
    const E = 64;
    const step = captureStep(({ ids }) => histogram(ids, E), { inputs: { ids: { shape: [3000], dtype: "int32" } } });
    for (let i = 0; i < 5; i++) {
      const ids = skewed(3000 + i, E).subarray(i);
      using counts = step({ ids });
      expect(Array.from(counts.dataSync())).toEqual(plain(ids, E));
    }
    expect(step.mode).toBe("captured");
    step.dispose();
  });
});
