import { OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { philox4x32, philoxBlock, words64 } from "./philox.js";

const ONES = 0xffffffff;

function hex(words: Uint32Array): string {
  return Array.from(words, (word) => word.toString(16).padStart(8, "0")).join(" ");
}

describe("philox4x32", () => {
  // Known answers published with Random123, the authors' own implementation (file kat_vectors).
  it.each([
    [[0, 0, 0, 0], [0, 0], "6627e8d5 e169c58d bc57ac4c 9b00dbd8"],
    [[ONES, ONES, ONES, ONES], [ONES, ONES], "408f276d 41c83b0e a20bc7c6 6d5451fd"],
    [[0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0], "d16cfe09 94fdcceb 5001e420 24126ea1"],
  ])("counter %s, key %s", (counter, key, expected) => {
    const out = new Uint32Array(4);
    philox4x32(counter[0]!, counter[1]!, counter[2]!, counter[3]!, key[0]!, key[1]!, out);
    expect(hex(out)).toBe(expected);
  });

  it("agrees with the same rounds in big integers", () => {
    const word = fc.integer({ min: 0, max: ONES });
    fc.assert(
      fc.property(fc.tuple(word, word, word, word, word, word), ([c0, c1, c2, c3, k0, k1]) => {
        const out = new Uint32Array(4);
        philox4x32(c0, c1, c2, c3, k0, k1, out);
        expect([...out]).toEqual(bigIntegerRounds([c0, c1, c2, c3], [k0, k1]));
      }),
    );
  });
});

describe("philoxBlock", () => {
  it("puts the block number in the low half of the counter and the stream in the high half", () => {
    const out = new Uint32Array(4);
    const expected = new Uint32Array(4);
    philoxBlock(words64(0x1234_5678_9abcn), words64(7n << 33n), 2 ** 40 + 3, out);
    philox4x32(3, 256, 0, 14, 0x5678_9abc, 0x1234, expected);
    expect(hex(out)).toBe(hex(expected));
  });
});

describe("words64", () => {
  it("splits numbers and bigints alike", () => {
    expect(words64(2 ** 40 + 5)).toEqual({ low: 5, high: 256 });
    expect(words64((1n << 64n) - 1n)).toEqual({ low: ONES, high: ONES });
  });

  it.each([-1, 1.5, Number.NaN, 2 ** 53, -1n, 1n << 64n])("refuses %s", (seed) => {
    expect(() => words64(seed)).toThrow(OptionError);
  });
});

function bigIntegerRounds(counter: number[], key: number[]): number[] {
  let [c0, c1, c2, c3] = counter.map(BigInt) as [bigint, bigint, bigint, bigint];
  let [k0, k1] = key.map(BigInt) as [bigint, bigint];
  const mask = 0xffffffffn;
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * c0;
    const p1 = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, p1 & mask, (p0 >> 32n) ^ c3 ^ k1, p0 & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  return [c0, c1, c2, c3].map(Number);
}
