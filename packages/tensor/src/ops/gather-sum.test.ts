import { describe, expect, it } from "vitest";
import { sample, sampleIds } from "../../test/numbers.js";
import * as t from "../index.js";
import { gatherSum, type Tensor, valueAndGrad } from "../index.js";

const values = (x: Tensor) => [...x.dataSync()];
const int = (shape: number[], ...list: number[]) => t.tensor(Int32Array.from(list), { shape });

/** Positions in `ids` by row, -1 behind them: `[R, m]` with as many columns as the row that is named most needs. */
function inverseOf(ids: Tensor, rows: number): Tensor {
  const named = Array.from({ length: rows }, (): number[] => []);
  for (const [position, id] of values(ids).entries()) if (id >= 0) named[id]!.push(position);
  const most = Math.max(...named.map((list) => list.length));
  return int([rows, most], ...named.flatMap((list) => [...list, ...new Array(most - list.length).fill(-1)]));
}

describe("gatherSum", () => {
  it("computes a worked example", () => {
    const x = t.tensor([
      [1, 2],
      [10, 20],
    ]);
    const ids = int([3, 2], 0, 1, 1, -1, -1, -1);
    const inverse = int([2, 2], 0, -1, 1, 2);
    expect(values(gatherSum(x, ids, inverse))).toEqual([11, 22, 10, 20, 0, 0]);
    const weights = t.tensor([
      [2, 0.5],
      [3, 7],
      [7, 7],
    ]);
    const { value, grads } = valueAndGrad((p: Tensor[]) => gatherSum(p[0]!, ids, inverse, p[1]!).sum(), [x, weights]);
    // 2·1 + 0.5·10 + 3·10 and twice that; a row's slope is the sum of its weights, a weight's that of its row.
    expect(value.itemSync()).toBe(37 + 74);
    expect(values(grads[0]!)).toEqual([2, 2, 3.5, 3.5]);
    expect(values(grads[1]!)).toEqual([3, 30, 30, 0, 0, 0]);
  });

  it.each([
    [1, 1, 1, 1],
    [9, 20, 3, 5],
    [40, 7, 1, 600],
    [6, 70, 4, 33],
  ])("of %d rows, %d sums of %d, width %d: is gather, mul and sum, with their gradients", (R, N, k, C) => {
    const x = sample([R, C], 1);
    const weights = sample([N, k], 2);
    const ids = sampleIds([N, k], 3, R);
    const slope = sample([N, C], 4);
    const run = (f: (x: Tensor, weights: Tensor) => Tensor) =>
      valueAndGrad((p: Tensor[]) => f(p[0]!, p[1]!).mul(slope).sum(), [x, weights]).grads.map(values);
    const inverse = inverseOf(ids, R);
    const got = run((a, w) => gatherSum(a, ids, inverse, w));
    const want = run((a, w) =>
      t
        .indexSelect(a, 0, ids.reshape([N * k]))
        .reshape([N, k, C])
        .mul(w.reshape([N, k, 1]))
        .sum({ axis: 1 }),
    );
    for (const [i, list] of want.entries())
      for (const [j, g] of list.entries()) expect(Math.abs(got[i]![j]! - g)).toBeLessThan(1e-12 * (1 + C + N));
  });

  it("adds 16-bit rows up in float32, by weights of either dtype", () => {
    // 1 + 2⁻⁸ lies between two numbers and would be rounded to 1: added one by one, the small ones would be lost.
    const x = t.tensor([[1], [2 ** -8], [2 ** -8]], { dtype: "bfloat16" });
    const [ids, inverse] = [int([1, 3], 0, 1, 2), int([3, 1], 0, 1, 2)];
    expect(values(gatherSum(x, ids, inverse).astype("float32"))).toEqual([1 + 2 ** -7]);
    const weights = t.tensor([[1, 2, 2]]);
    expect(values(gatherSum(x, ids, inverse, weights).astype("float32"))).toEqual([1 + 2 ** -6]);
    const { grads } = valueAndGrad((w: Tensor) => gatherSum(x, ids, inverse, w).astype("float32").sum(), weights);
    expect([grads.dtype, values(grads)]).toEqual(["float32", [1, 2 ** -8, 2 ** -8]]);
  });

  it("has no rows, no terms and no columns", () => {
    expect(values(gatherSum(t.ones([0, 2]), int([1, 1], -1), t.zeros([0, 1], { dtype: "int32" })))).toEqual([0, 0]);
    expect(values(gatherSum(t.ones([2, 1]), t.zeros([3, 0], { dtype: "int32" }), int([2, 1], -1, -1)))).toEqual([
      0, 0, 0,
    ]);
    expect(gatherSum(t.ones([2, 0]), int([1, 1], 1), int([2, 1], -1, 0)).shape).toEqual([1, 0]);
    const weights = t.ones([3, 0]);
    const none = t.zeros([3, 0], { dtype: "int32" });
    const { grads } = valueAndGrad(
      (p: Tensor[]) => gatherSum(p[0]!, none, int([2, 1], -1, -1), p[1]!).sum(),
      [t.ones([2, 1]), weights],
    );
    expect(grads.map(values)).toEqual([[0, 0], []]);
  });

  it.each([-2, 2, 2 ** 31 - 1])("tells id %i at the read", async (id) => {
    const out = gatherSum(t.ones([2, 3]), int([2, 2], 0, -1, 1, id), int([2, 1], 0, 2));
    await expect(out.data()).rejects.toMatchObject({
      code: "ERR_INDEX",
      message: `[gatherSum] id ${id} at position 3 is neither -1 nor one of the 2 rows`,
    });
  });
});
