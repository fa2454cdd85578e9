import { FormatError, OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { splitTokens, splitWindows, TokenDataset } from "./token-dataset.js";

function counting(length: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => i);
}

describe("splitWindows", () => {
  it("shifts the targets by one", () => {
    // Two windows of T + 1 = 3 tokens.
    const { tokens, targets } = splitWindows(Int32Array.of(1, 2, 3, 4, 5, 6), 2, 2);
    expect(tokens).toEqual(Int32Array.of(1, 2, 4, 5));
    expect(targets).toEqual(Int32Array.of(2, 3, 5, 6));
  });
});

describe("TokenDataset", () => {
  it("without a random phase cuts 7 tokens into the windows [0..3] and [3..6]", () => {
    const data = new TokenDataset(counting(7), { seqLen: 3, batchSize: 2, randomPhase: false });
    const { tokens, targets, batchSize, seqLen } = data.next();
    expect([batchSize, seqLen]).toEqual([2, 3]);
    const rows = [0, 3].map((at) => [...tokens.subarray(at, at + 3), targets[at + 2]]).sort((a, b) => a[0]! - b[0]!);
    expect(rows).toEqual([
      [0, 1, 2, 3],
      [3, 4, 5, 6],
    ]);
  });

  it("visits every window exactly once an epoch, each target at most once", () => {
    const sizes = fc.record({ length: fc.integer({ min: 2, max: 400 }), seqLen: fc.integer({ min: 1, max: 20 }) });
    fc.assert(
      fc.property(sizes, fc.nat(), fc.nat(3), fc.boolean(), ({ length, seqLen }, seed, epoch, randomPhase) => {
        fc.pre(length > seqLen);
        const data = new TokenDataset(counting(length), { seqLen, batchSize: 1, seed, randomPhase });
        const starts = data.windowStarts(epoch).slice().sort();
        const phase = starts[0]!;
        expect(phase).toBeLessThan(seqLen);
        expect(starts).toEqual(counting(Math.floor((length - 1 - phase) / seqLen)).map((i) => phase + i * seqLen));
        expect(starts.length).toBeGreaterThan(0);
      }),
    );
  });

  it("hands out the windows of one epoch after those of the other, batches reaching over the end", () => {
    const data = new TokenDataset(counting(50), { seqLen: 4, batchSize: 5, seed: 3 });
    const expected = [0, 1, 2].flatMap((epoch) => [...data.windowStarts(epoch)]);
    const seen: number[] = [];
    while (data.epoch < 2) {
      const { tokens } = data.next();
      for (let b = 0; b < 5; b++) seen.push(tokens[b * 4]!);
    }
    expect(seen).toEqual(expected.slice(0, seen.length));
    expect(seen.length).toBeGreaterThan(data.windowStarts(0).length + data.windowStarts(1).length);
  });

  it("tells where its windows begin", () => {
    const data = new TokenDataset(counting(50), { seqLen: 4, batchSize: 5, seed: 3 });
    const { tokens, origins } = data.next();
    expect([...origins!]).toEqual([0, 4, 8, 12, 16].map((at) => tokens[at]));
    expect([...origins!]).toEqual([...data.windowStarts(0).subarray(0, 5)]);
  });

  it("orders epochs and seeds differently", () => {
    const order = (seed: number, epoch: number) =>
      new TokenDataset(counting(400), { seqLen: 4, batchSize: 1, seed, randomPhase: false }).windowStarts(epoch).join();
    expect(new Set([order(0, 0), order(0, 1), order(1, 0), order(1, 1)]).size).toBe(4);
  });

  it("continues identically from a stored state", () => {
    fc.assert(
      fc.property(fc.nat(40), fc.integer({ min: 1, max: 7 }), fc.nat(), (steps, batchSize, seed) => {
        const make = () => new TokenDataset(new Uint16Array(counting(60)), { seqLen: 5, batchSize, seed });
        const first = make();
        for (let i = 0; i < steps; i++) first.next();
        const second = make();
        second.restore(JSON.parse(JSON.stringify(first.state())));
        for (let i = 0; i < 12; i++) expect(second.next()).toEqual(first.next());
        expect(second.state()).toEqual(first.state());
      }),
    );
  });

  it("resumes with another batch size at the same window", () => {
    const first = new TokenDataset(counting(100), { seqLen: 4, batchSize: 6 });
    first.next();
    const second = new TokenDataset(counting(100), { seqLen: 4, batchSize: 3 });
    second.restore(first.state());
    const expected = first.next().tokens;
    expect([...second.next().tokens, ...second.next().tokens]).toEqual([...expected]);
  });

  it("refuses a state of other data or options, and a damaged one", () => {
    const data = new TokenDataset(counting(100), { seqLen: 4, batchSize: 2, seed: 1 });
    const state = data.state();
    const reversed = new TokenDataset(counting(100).reverse(), { seqLen: 4, batchSize: 2, seed: 1 });
    expect(() => reversed.restore(state)).toThrow("the state has fingerprint");
    const longer = new TokenDataset(counting(100), { seqLen: 5, batchSize: 2, seed: 1 });
    expect(() => longer.restore(state)).toThrow(
      "[TokenDataset.restore] the state has seqLen 4 but this source has 5. Resume with the data and options that the state was made with.",
    );
    for (const damage of [{ index: 1000 }, { index: -1 }, { epoch: "1" }, { kind: "other" }]) {
      expect(() => data.restore({ ...state, ...damage })).toThrow(FormatError);
    }
    expect(data.state()).toEqual(state);
  });

  it("refuses sizes that are no positive integers and a corpus shorter than a window", () => {
    for (const bad of [0, -1, 1.5, Number.NaN]) {
      expect(() => new TokenDataset(counting(10), { seqLen: bad, batchSize: 1 })).toThrow(OptionError);
      expect(() => new TokenDataset(counting(10), { seqLen: 1, batchSize: bad })).toThrow(OptionError);
    }
    expect(() => new TokenDataset(counting(4), { seqLen: 4, batchSize: 1 })).toThrow(
      "[TokenDataset] a window needs 5 tokens; the corpus has 4. Use a longer corpus or a shorter seqLen.",
    );
  });
});

describe("splitTokens", () => {
  it("keeps the last part for validation, on the same memory", () => {
    const tokens = counting(10);
    const { train, valid } = splitTokens(tokens, 0.1);
    expect([train.length, valid.length, valid[0]]).toEqual([9, 1, 9]);
    expect(valid.buffer).toBe(tokens.buffer);
  });

  it.each([0, 1, -0.5, Number.NaN])("refuses the fraction %s", (fraction) => {
    expect(() => splitTokens(counting(10), fraction)).toThrow(OptionError);
  });
});
