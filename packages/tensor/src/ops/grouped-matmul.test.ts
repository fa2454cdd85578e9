import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { expectClose, largest, sumError } from "../../test/compare.js";
import { sample } from "../../test/numbers.js";
import * as t from "../index.js";
import { groupedMatmul, groupedMatmulMany, scope, type Tensor, valueAndGrad } from "../index.js";

const counts = (...list: number[]) => t.tensor(Int32Array.from(list));
const values = (x: Tensor) => [...x.dataSync()];

/** The groups' products one by one, and zeros behind them. */
function oneByOne(x: Tensor, w: Tensor, list: readonly number[]): Tensor {
  let row = 0;
  const parts = list.map((count, e) => {
    row += count;
    return t.matmul(x.slice(0, row - count, row), w.slice(0, e, e + 1).reshape([w.shape[1]!, w.shape[2]!]));
  });
  return t.concat([...parts, t.zeros([x.shape[0]! - row, w.shape[2]!], { dtype: x.dtype })]);
}

describe("groupedMatmul", () => {
  it("computes a worked example", () => {
    // Rows of groups 0, 2, 2 and none.
    const x = t.tensor([
      [1, 2],
      [3, 4],
      [5, 6],
      [7, 8],
    ]);
    const w = t.tensor([
      [[1], [1]],
      [[9], [9]],
      [[1], [-1]],
    ]);
    // 1 + 2; 3 − 4; 5 − 6; nothing.
    expect(values(groupedMatmul(x, w, counts(1, 0, 2)))).toEqual([3, -1, -1, 0]);
  });

  it("gives each group's products and their gradients, whatever the counts", () => {
    const sizes = fc.record({
      list: fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 40 })), { minLength: 1, maxLength: 6 }),
      behind: fc.integer({ min: 0, max: 3 }),
      K: fc.integer({ min: 1, max: 20 }),
      N: fc.integer({ min: 1, max: 40 }),
      turned: fc.boolean(),
    });
    fc.assert(
      fc.property(sizes, ({ list, behind, K, N, turned }) => {
        scope(() => {
          const A = list.reduce((a, b) => a + b, behind);
          const x = sample([A, K], 1);
          const w = turned ? sample([list.length, N, K], 2) : sample([list.length, K, N], 2);
          const slope = sample([A, N], 3);
          const matrices = (p: Tensor) => (turned ? p.transpose(1, 2) : p);
          const run = (product: (x: Tensor, w: Tensor) => Tensor) =>
            valueAndGrad(
              (p: { x: Tensor; w: Tensor }) => {
                const out = product(p.x, matrices(p.w));
                return { loss: out.mul(slope).sum(), aux: { out } };
              },
              { x, w },
            );
          const got = run((a, b) => groupedMatmul(a, b, counts(...list)));
          const want = run((a, b) => oneByOne(a, b, list));
          const atol = (terms: number) => ({ atol: 4 * sumError(terms, "float64") });
          expectClose(got.aux.out.dataSync(), want.aux.out.dataSync(), atol(K));
          expectClose(got.grads.x.dataSync(), want.grads.x.dataSync(), atol(N));
          expectClose(got.grads.w.dataSync(), want.grads.w.dataSync(), atol(A + 1));
          expect(got.grads.w.isContiguous).toBe(true);
        });
      }),
      { numRuns: 60 },
    );
  });

  it.each(["float32", "bfloat16", "float16"] as const)("agrees with the products one by one in %s", (dtype) => {
    const list = [130, 0, 1, 9, 260];
    const x = sample([410, 70], 1, { dtype });
    const w = sample([5, 90, 70], 2, { dtype }).transpose(1, 2);
    const out = groupedMatmul(x, w, counts(...list));
    expect(out.dtype).toBe(dtype);
    const want = oneByOne(x.astype("float32"), w.astype("float32"), list);
    const rounding = { float32: 0, bfloat16: 2 ** -8, float16: 2 ** -11 }[dtype] * largest(want.dataSync());
    expectClose(out.astype("float32").dataSync(), want.dataSync(), { atol: 2 * sumError(70, "float32") + rounding });
  });

  it("has no rows, no columns, no groups, and sums of nothing", () => {
    const shapeOf = (x: number[], w: number[], ...list: number[]) => {
      const run = (p: Tensor[]) => {
        const out = groupedMatmul(p[0]!, p[1]!, counts(...list));
        return { loss: out.sum(), aux: out };
      };
      const { aux, grads } = valueAndGrad(run, [t.ones(x), t.ones(w)]);
      expect(values(aux).every((y) => y === 0)).toBe(true);
      for (const g of grads) expect(values(g).every((y) => y === 0)).toBe(true);
      expect(grads.map((g) => g.shape)).toEqual([x, w]);
      return aux.shape;
    };
    expect(shapeOf([0, 3], [2, 3, 4], 0, 0)).toEqual([0, 4]);
    expect(shapeOf([5, 0], [2, 0, 4], 2, 3)).toEqual([5, 4]);
    expect(shapeOf([5, 3], [2, 3, 0], 2, 3)).toEqual([5, 0]);
    expect(shapeOf([5, 3], [0, 3, 4])).toEqual([5, 4]);
    expect(shapeOf([5, 3], [2, 3, 4], 0, 0)).toEqual([5, 4]);
  });

  it("does the same work in a captured step, with the counts of each", () => {
    const [x, w] = [sample([6, 3], 1), sample([2, 3, 4], 2)];
    const form = { shape: [2], dtype: "int32" } as const;
    using step = t.captureStep(({ list }) => groupedMatmul(x, w, list), { inputs: { list: form }, warmup: 1 });
    for (const list of [
      [2, 3],
      [6, 0],
      [0, 1],
      [0, 0],
    ])
      expect(values(step({ list: counts(...list) }))).toEqual(values(groupedMatmul(x, w, counts(...list))));
  });

  it.each([
    [[3, -1], "counts[1] is -1"],
    [[3, 3], "counts[1] is 3"],
    [[6, 0], "counts[0] is 6"],
  ])("tells bad counts %j at the read", async (list, words) => {
    const out = groupedMatmul(t.ones([5, 3]), t.ones([2, 3, 4]), counts(...list));
    await expect(out.data()).rejects.toMatchObject({
      code: "ERR_INDEX",
      message: `[groupedMatmul] ${words}: counts must not be negative, nor more than the 5 rows together`,
      stack: expect.stringMatching(/queued[\s\S]*grouped-matmul\.test\.ts/),
    });
  });
});

describe("groupedMatmulMany", () => {
  it("gives each product, and one gradient of the rows, also where a product isn't used", () => {
    const list = [7, 0, 20];
    const [x, ...ws] = [sample([30, 9], 1), sample([3, 9, 4], 2), sample([3, 9, 11], 3), sample([3, 9, 2], 4)];
    const slopes = [sample([30, 4], 5), sample([30, 11], 6)];
    const run = (products: (x: Tensor, ws: Tensor[]) => Tensor[]) =>
      valueAndGrad(
        (p: { x: Tensor; ws: Tensor[] }) => {
          const [a, b] = products(p.x, p.ws);
          return a!.mul(slopes[0]!).sum().add(b!.mul(slopes[1]!).sum());
        },
        { x: x!, ws },
      ).grads;
    const got = run((a, all) => groupedMatmulMany(a, all, counts(...list)));
    const want = run((a, all) => all.map((w) => groupedMatmul(a, w, counts(...list))));
    expectClose(got.x.dataSync(), want.x.dataSync(), { atol: 4 * sumError(15, "float64") });
    for (const i of [0, 1]) expect(values(got.ws[i]!)).toEqual(values(want.ws[i]!));
    expect(values(got.ws[2]!).every((g) => g === 0)).toBe(true);
  });
});
