import { describe, expect, it } from "vitest";
import {
  copyInto,
  type DType,
  fill,
  full,
  memory,
  randomNormal,
  randomUniform,
  scope,
  tensor,
  zeros,
} from "../index.js";

describe("tensor", () => {
  it("takes numbers, nested arrays and typed arrays", () => {
    expect(tensor(3)).toMatchObject({ shape: [], dtype: "float32" });
    expect([
      ...tensor([
        [1, 2],
        [3, 4],
      ]).dataSync(),
    ]).toEqual([1, 2, 3, 4]);
    expect(tensor(new Int32Array(6), { shape: [2, 3] })).toMatchObject({ shape: [2, 3], dtype: "int32" });
    expect(tensor([[], []])).toMatchObject({ shape: [2, 0] });
    expect(tensor(new Float64Array(2))).toMatchObject({ dtype: "float64" });
  });

  it("converts: floats are truncated to integers and saturate, NaN is 0, bool is x ≠ 0", () => {
    const values = [1.9, -1.9, 1e20, -1e20, Number.NaN, 300];
    expect([...tensor(values, { dtype: "int32" }).dataSync()]).toEqual([1, -1, 2 ** 31 - 1, -(2 ** 31), 0, 300]);
    expect([...tensor(values, { dtype: "uint8" }).dataSync()]).toEqual([1, 0, 255, 0, 0, 255]);
    expect([...tensor([0, 2, -0.5, 0], { dtype: "bool" }).dataSync()]).toEqual([0, 1, 1, 0]);
    expect([...tensor(Uint8Array.of(0, 2, 255), { dtype: "bool" }).dataSync()]).toEqual([0, 1, 1]);
    expect([...tensor(Uint8Array.of(1, 2), { dtype: "bfloat16" }).astype("float32").dataSync()]).toEqual([1, 2]);
  });

  it("takes bits of bfloat16 and float16 from Uint16Array, and gives them back", async () => {
    const x = tensor(Uint16Array.of(0x3fc0, 0xc000), { dtype: "bfloat16" });
    expect([...x.astype("float32").dataSync()]).toEqual([1.5, -2]);
    expect([...x.dataSync()]).toEqual([0x3fc0, 0xc000]);
    expect(await tensor(Uint16Array.of(0x3e00), { dtype: "float16" }).item()).toBe(1.5);
    expect(await tensor(Uint16Array.of(0x0001), { dtype: "float16" }).item()).toBe(2 ** -24);
    expect(await tensor(Uint16Array.of(0xfc00), { dtype: "float16" }).item()).toBe(Number.NEGATIVE_INFINITY);
    expect(await tensor(Uint16Array.of(0x7fc0), { dtype: "bfloat16" }).item()).toBeNaN();
  });

  it("converts every number to 16 bits by rounding to nearest, ties to even", () => {
    // bfloat16 has 8 significant bits: 257 lies between 256 and 258, 259 between 258 and 260.
    expect([...tensor([257, 259, 257.001], { dtype: "bfloat16" }).astype("float32").dataSync()]).toEqual([
      256, 260, 258,
    ]);
    // float16 has 11: 2049 between 2048 and 2050; 65520 rounds to infinity.
    expect([...tensor([2049, 2051, 65519, 65520], { dtype: "float16" }).astype("float32").dataSync()]).toEqual([
      2048,
      2052,
      65504,
      Number.POSITIVE_INFINITY,
    ]);
  });
});

describe("fill", () => {
  it("sets every element in place, also to what isn't finite", () => {
    const x = zeros([2, 2]);
    expect(fill(x.slice(1, 1), Number.NEGATIVE_INFINITY).shape).toEqual([2, 1]);
    expect([...x.dataSync()]).toEqual([0, Number.NEGATIVE_INFINITY, 0, Number.NEGATIVE_INFINITY]);
    expect(() => fill(x, "1" as never)).toThrow("[fill] value must be a number; received string");
  });
});

describe("full", () => {
  it.each(["float32", "float64", "bfloat16", "float16", "int32", "uint8", "bool"] as DType[])(
    "fills %s",
    async (dtype) => {
      expect(await full([], 1, { dtype }).item()).toBe(1);
      expect([...zeros([3], { dtype }).dataSync()]).toEqual([0, 0, 0]);
    },
  );
});

/** Words 0..3 of the streams (seed, stream) = (0, 0), (42, 7) and (2^53 − 1, 123456789) of Philox 4×32-10; the first are a published known answer. */
const words = [
  { seed: 0, stream: 0, words: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8] },
  { seed: 42, stream: 7, words: [0x67ee6f2c, 0xe55410cc, 0x6c7eca35, 0x557398d3] },
  { seed: 9007199254740991, stream: 123456789, words: [0x811d7e56, 0xe0f33644, 0x577992dc, 0x30d8291e] },
];

describe("randomUniform", () => {
  it.each(words)(
    "makes the numbers of Philox 4×32-10 for seed $seed, stream $stream, bit for bit",
    ({ seed, stream, words }) => {
      const narrow = randomUniform({ seed, stream }, [4]).dataSync();
      expect([...narrow]).toEqual(words.map((word) => (word >>> 8) / 2 ** 24));
      const wide = randomUniform({ seed, stream }, [2], { dtype: "float64" }).dataSync();
      expect([...wide]).toEqual([0, 2].map((i) => ((words[i]! >>> 5) * 2 ** 26 + (words[i + 1]! >>> 6)) / 2 ** 53));
    },
  );

  it("agrees with the pure TypeScript generator of @llmeff/data far into a stream", () => {
    const x = randomUniform({ seed: 12345, stream: 3 }, [100_003]).dataSync();
    expect([0, 1, 4095, 65_537, 100_002].map((i) => x[i]! * 2 ** 24)).toEqual([
      13878620, 8327847, 6180396, 12219047, 14643037,
    ]);
  });

  it("gives an element the same number in any shape, and other numbers in other streams", () => {
    scope(() => {
      const flat = randomUniform({ seed: 1, stream: 2 }, [1000]).dataSync();
      expect(randomUniform({ seed: 1, stream: 2 }, [10, 7]).dataSync()).toEqual(flat.slice(0, 70));
      expect(randomUniform({ seed: 1, stream: 3 }, [1000]).dataSync()).not.toEqual(flat);
      expect(randomUniform({ seed: 2, stream: 2 }, [1000]).dataSync()).not.toEqual(flat);
    });
  });

  it("is in [0, 1) with the mean and variance of the uniform distribution", () => {
    const n = 40_000;
    const x = [...randomUniform({ seed: 5 }, [n]).dataSync()];
    expect(x.every((v) => v >= 0 && v < 1)).toBe(true);
    const mean = x.reduce((a, b) => a + b, 0) / n;
    const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / n;
    expect(Math.abs(mean - 1 / 2)).toBeLessThan(5 * Math.sqrt(1 / 12 / n)); // five standard errors
    expect(Math.abs(variance - 1 / 12)).toBeLessThan(5 * Math.sqrt(1 / 180 / n));
  });
});

describe("randomNormal", () => {
  it.each(words)("is Box–Muller of pairs of those words, for seed $seed, stream $stream", ({ seed, stream, words }) => {
    const u = words.map((word) => (word + 0.5) / 2 ** 32);
    const expected = [0, 2].flatMap((i) => {
      const radius = Math.sqrt(-2 * Math.log(u[i]!));
      return [radius * Math.cos(2 * Math.PI * u[i + 1]!), radius * Math.sin(2 * Math.PI * u[i + 1]!)];
    });
    const wide = randomNormal({ seed, stream }, [4], { dtype: "float64" }).dataSync();
    for (const [i, x] of expected.entries())
      expect(Math.abs(wide[i]! - x)).toBeLessThanOrEqual(16 * 2 ** -53 * (1 + Math.abs(x)));
    expect(randomNormal({ seed, stream }, [4]).dataSync()).toEqual(Float32Array.from(wide));
  });

  it("has mean 0 and variance 1", () => {
    const n = 40_000;
    const x = [...randomNormal({ seed: 5 }, [n]).dataSync()];
    const mean = x.reduce((a, b) => a + b, 0) / n;
    const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / n;
    expect(Math.abs(mean)).toBeLessThan(5 / Math.sqrt(n));
    expect(Math.abs(variance - 1)).toBeLessThan(5 * Math.sqrt(2 / n));
  });
});

describe("copyInto", () => {
  it("copies between overlapping views of one memory as if the source were elsewhere", () => {
    for (const n of [2, 5, 1000, 100_003]) {
      scope(() => {
        const values = Float32Array.from({ length: n }, (_, i) => i);
        const down = tensor(values);
        copyInto(down.slice(0, 0, n - 1), down.slice(0, 1, n));
        expect([...down.dataSync()]).toEqual([...values.slice(1), n - 1]);
        const up = tensor(values);
        copyInto(up.slice(0, 1, n), up.slice(0, 0, n - 1));
        expect([...up.dataSync()]).toEqual([0, ...values.slice(0, n - 1)]);
      });
    }
    const square = tensor([
      [1, 2],
      [3, 4],
    ]);
    copyInto(square, square.T);
    expect([...square.dataSync()]).toEqual([1, 3, 2, 4]);
  });

  it("leaves no copy behind", () => {
    const x = tensor([1, 2, 3]);
    const before = memory().tensors;
    scope(() => {
      copyInto(x.slice(0, 0, 2), x.slice(0, 1, 3));
    });
    expect(memory().tensors).toBe(before);
  });
});
