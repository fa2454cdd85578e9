import { describe, expect, it } from "vitest";
import { expectClose, unitRoundoff } from "../../test/compare.js";
import { sample } from "../../test/numbers.js";
import {
  batchNorm,
  groupNorm,
  layerNorm,
  memory,
  OptionError,
  ones,
  ShapeError,
  scope,
  tensor,
  zeros,
} from "../index.js";

describe("batchNorm", () => {
  it("normalises by the biased variance and keeps the unbiased one", () => {
    // Channel 0 holds 1, 3, 5, 7: mean 4, biased variance 5, unbiased 20/3. Channel 1 is constant.
    const x = tensor([
      [
        [1, 3],
        [2, 2],
      ],
      [
        [5, 7],
        [2, 2],
      ],
    ]);
    const [mean, variance] = [zeros([2]), ones([2])];
    const y = batchNorm(x, tensor([2, 2]), tensor([1, 1]), mean, variance, { training: true, momentum: 0.5, eps: 4 });
    // (x − 4) / √(5 + 4) · 2 + 1
    const expected = [-1, 1 / 3, 1, 1, 5 / 3, 3, 1, 1];
    expectClose(y.dataSync(), expected, { atol: 8 * unitRoundoff.float32 });
    expectClose(mean.dataSync(), [2, 1], { rtol: 2 * unitRoundoff.float32 });
    expectClose(variance.dataSync(), [0.5 + 10 / 3, 0.5], { rtol: 4 * unitRoundoff.float32 });
  });

  it("uses the running statistics otherwise, and leaves them alone", () => {
    const [mean, variance] = [tensor([1, 2]), tensor([3, 8])];
    const y = batchNorm(tensor([[3, 5]]), tensor([4, 6]), tensor([0, 1]), mean, variance, { eps: 1 });
    expectClose(y.dataSync(), [4, 7], { rtol: 4 * unitRoundoff.float32 });
    expect([...mean.dataSync(), ...variance.dataSync()]).toEqual([1, 2, 3, 8]);
  });

  it("keeps its statistics when made in a scope, and frees the rest", () => {
    const [mean, variance] = [zeros([3]), ones([3])];
    const before = memory().tensors;
    scope(
      () =>
        void batchNorm(sample([4, 3, 5], 1, { dtype: "float32" }), ones([3]), zeros([3]), mean, variance, {
          training: true,
        }),
    );
    expect(memory().tensors).toBe(before);
    expect(mean.dataSync()[0]).not.toBe(0);
  });

  it("keeps float32 statistics of 16-bit numbers, and leaves nothing but its result", () => {
    const x = tensor([[1], [3]], { dtype: "bfloat16" });
    const [w, b, mean, variance] = [
      x.slice(0, 0, 1).reshape([1]),
      zeros([1], { dtype: "bfloat16" }),
      ones([1]),
      ones([1]),
    ];
    const before = memory().tensors;
    const y = batchNorm(x, w, b, mean, variance, { training: true, momentum: 2 ** -12, eps: 0 });
    expect(memory().tensors).toBe(before + 1);
    expect(y.dtype).toBe("bfloat16");
    expect([...y.astype("float32").dataSync()]).toEqual([-1, 1]);
    // 1 + (2 − 1) / 4096, which bfloat16 rounds to 1; both variances begin at 1, and the unbiased one of 1 and 3 is 2.
    expect([mean.itemSync(), variance.itemSync()]).toEqual([1 + 2 ** -12, 1 + 2 ** -12]);
    expect(() => batchNorm(x, w, b, w, w)).toThrow("[batchNorm] running statistics of x bfloat16 must be float32");
  });

  it("gives empty arrays for empty batches", () => {
    expect(batchNorm(zeros([0, 2, 3]), ones([2]), zeros([2]), zeros([2]), ones([2])).shape).toEqual([0, 2, 3]);
  });

  it("refuses what it can't normalise", () => {
    const [a, b] = [ones([2]), ones([3])];
    expect(() => batchNorm(ones([1, 2]), a, a, a, a, { training: true })).toThrow("[batchNorm] a channel has 1 values");
    expect(() => batchNorm(ones([4, 2]), a, a, b, a)).toThrow("[batchNorm] runningMean must be [2]");
    expect(() => batchNorm(ones([4]), a, a, a, a)).toThrow(ShapeError);
    expect(() => batchNorm(ones([4, 2]), a, a, a, a, { momentum: 2 })).toThrow(OptionError);
  });
});

describe("groupNorm", () => {
  it("is layer norm over each group of channels", () => {
    const x = sample([2, 6, 5], 1);
    const y = groupNorm(x, 2, ones([6], { dtype: "float64" }), zeros([6], { dtype: "float64" }));
    expectClose(y.dataSync(), layerNorm(x.reshape([2, 2, 15])).dataSync(), { atol: 4 * unitRoundoff.float64 });
  });

  it("scales and shifts each channel, and refuses groups that don't divide them", () => {
    const y = groupNorm(
      tensor([
        [
          [1, 3],
          [3, 1],
        ],
      ]),
      1,
      tensor([2, 3]),
      tensor([0, 1]),
      { eps: 0 },
    );
    expect([...y.dataSync()]).toEqual([-2, 2, 4, -2]);
    expect(() => groupNorm(zeros([1, 4, 2]), 3, zeros([4]), zeros([4]))).toThrow(OptionError);
  });
});
