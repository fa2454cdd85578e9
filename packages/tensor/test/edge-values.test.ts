/** Arrays without elements, and numbers that are not finite, in every operation. */
import { describe, expect, it } from "vitest";
import * as t from "../src/index.js";
import { scope, type Tensor } from "../src/index.js";
import { sample } from "./numbers.js";

/** Operations to be called by name. */
const byName = { ...t };

const f = (...shape: number[]) => t.zeros(shape);
const ids = (...values: number[]) => t.tensor(Int32Array.from(values));

describe("empty arrays", () => {
  const none = (values: ArrayLike<number>) => expect([...Array.from(values)]).toEqual([]);

  it("go through every operation", () => {
    scope(() => {
      for (const name of ["neg", "exp", "silu", "gelu", "relu", "square", "isFinite"] as const)
        none(byName[name](f(0, 3)).dataSync());
      none(f(2, 0).add(f(1, 1)).dataSync());
      none(t.concat([f(0, 2), f(0, 2)]).dataSync());
      expect(t.concat([f(0, 2), t.ones([1, 2])]).shape).toEqual([1, 2]);
      none(f(3, 0).T.reshape([0, 7]).dataSync());
      none(t.softmax(f(3, 0)).dataSync());
      none(t.swiglu(f(0, 2), f(0, 2)).dataSync());
      none(t.rmsNorm(f(0, 2), f(2)).dataSync());
      none(t.embedding(f(3, 2), ids()).dataSync());
      none(t.linear(f(0, 3), f(4, 3)).dataSync());
      none(t.attention(f(0, 2, 2, 4), f(0, 2, 1, 4), f(0, 2, 1, 4)).dataSync());
      none(t.attention(f(1, 0, 2, 4), f(1, 2, 1, 4), f(1, 2, 1, 4)).dataSync());
      none(t.simplicialAttention(f(1, 0, 2, 4), f(1, 2, 1, 4), f(1, 2, 1, 4), f(1, 2, 1, 4), f(1, 2, 1, 4)).dataSync());
      none(t.randomNormal({ seed: 1 }, [0]).dataSync());
      expect([...t.matmul(f(2, 0), f(0, 3)).dataSync()]).toEqual(new Array(6).fill(0));
      expect([...t.linear(f(2, 0), f(3, 0)).dataSync()]).toEqual(new Array(6).fill(0));
      expect([...t.sum(f(2, 0), { axis: 1 }).dataSync()]).toEqual([0, 0]);
      for (const x of [
        t.sort(f(0, 3)).values,
        t.cumsum(f(2, 0), -1),
        t.topK(f(3, 2), 0).indices,
        t.argMax(f(0, 3), { axis: 1 }),
      ])
        none(x.dataSync());
      for (const x of [
        t.layerNorm(f(3, 0)),
        t.groupNorm(f(2, 0, 2), 1, f(0), f(0)),
        t.batchNorm(f(0, 3), f(3), f(3), f(3), f(3)),
      ])
        none(x.dataSync());
      for (const x of [
        t.conv2d(f(0, 2, 3, 3), f(4, 2, 3, 3)),
        t.conv1d(f(1, 2, 3), f(0, 2, 3)),
        t.avgPool1d(f(1, 0, 4), 2),
      ])
        none(x.dataSync());
      for (const x of [t.gather(f(3, 2), 0, t.zeros([0, 2], { dtype: "int32" })), t.oneHot(ids(), 4), t.triu(f(0, 3))])
        none(x.dataSync());
      expect([...t.pad(f(0), [[1, 1]], 5).dataSync()]).toEqual([5, 5]);
      expect([...t.indexAdd(t.ones([2]), 0, ids(), f(0)).dataSync()]).toEqual([1, 1]);
      expect([...t.einsum("ij,jk->ik", f(2, 0), f(0, 1)).dataSync()]).toEqual([0, 0]);
      expect(t.mseLoss(f(0), f(0), { reduction: "sum" }).itemSync()).toBe(0);
      expect(t.crossEntropy(f(0, 3), ids()).itemSync()).toBe(0);
      expect(t.linearCrossEntropy(f(0, 3), f(5, 3), ids()).itemSync()).toBe(0);
      expect(t.globalNorm([f(0), t.tensor([3, 4])]).itemSync()).toBe(5);
      expect(t.globalNorm([f(0)]).itemSync()).toBe(0);
      expect(f(0).toString()).toBe("Tensor(float32 [0]: )");
    });
  });

  it("give gradients of zeros, never what the memory held before", () => {
    scope(() => {
      const weights = () => [sample([4, 4], 1), sample([4], 2)];
      const losses: [string, (p: Tensor[]) => Tensor][] = [
        ["embedding", ([w]) => t.embedding(w!, ids()).sum()],
        ["linear", ([w]) => t.linear(t.zeros([0, 4], { dtype: "float64" }), w!).sum()],
        ["matmul", ([w]) => t.matmul(t.zeros([0, 4], { dtype: "float64" }), w!).sum()],
        ["rmsNorm", ([, g]) => t.rmsNorm(t.zeros([0, 4], { dtype: "float64" }), g!).sum()],
        [
          "attention",
          ([w]) =>
            t
              .attention(
                t.zeros([1, 0, 1, 4], { dtype: "float64" }),
                w!.reshape([1, 4, 1, 4]),
                w!.reshape([1, 4, 1, 4]),
              )
              .sum(),
        ],
        [
          "attention without keys",
          ([w]) => {
            const k = t.zeros([1, 0, 1, 4], { dtype: "float64" });
            return t.attention(w!.reshape([1, 4, 1, 4]), k, k, { qOffset: 0 }).sum();
          },
        ],
        ["linearCrossEntropy", ([w]) => t.linearCrossEntropy(t.zeros([0, 4], { dtype: "float64" }), w!, ids())],
        ["crossEntropy without targets", ([w]) => t.crossEntropy(w!, ids(-100, -100, -100, -100))],
        ["linearCrossEntropy without targets", ([w]) => t.linearCrossEntropy(w!, w!, ids(-100, -100, -100, -100))],
        ["slice", ([w]) => w!.slice(0, 2, 2).sum()],
        ["expand", ([w]) => w!.reshape([4, 4, 1]).expand([4, 4, 0]).sum()],
      ];
      // Blocks of the sizes that follow hold 7s when they are freed: memory that is not written shows.
      scope(() => [16, 4].flatMap((n) => Array.from({ length: 8 }, () => t.full([n], 7, { dtype: "float64" }))).length);
      for (const [name, loss] of losses) {
        for (const g of t.grad(loss, weights())) expect([...new Set(g.dataSync())], name).toEqual([0]);
      }
    });
  });
});

describe("numbers that are not finite", () => {
  const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

  it("go through, and are found", () => {
    scope(() => {
      const x = t.tensor([1, nan, inf, -inf]);
      expect([...t.isFinite(x).dataSync()]).toEqual([1, 0, 0, 0]);
      for (const name of ["sum", "mean", "max", "min"] as const) expect(byName[name](x).itemSync(), name).toBeNaN();
      for (const name of ["maximum", "minimum"] as const) {
        expect(byName[name](x, 2).dataSync()[1], name).toBeNaN();
        expect(byName[name](2, x).dataSync()[1], name).toBeNaN();
      }
      for (const name of ["exp", "tanh", "silu", "gelu", "sigmoid", "sqrt", "relu", "abs"] as const)
        expect(byName[name](x).dataSync()[1], name).toBeNaN();
      expect(t.globalNorm([x]).itemSync()).toBeNaN();
      for (const n of [1, 7, 16, 33, 100]) {
        for (const at of new Set([0, n >> 1, n - 1])) {
          const values = new Float32Array(n).fill(1);
          values[at] = nan;
          const row = t.tensor(values, { shape: [1, n] });
          expect(t.max(row).itemSync(), `max of ${n} with NaN at ${at}`).toBeNaN();
          expect(t.min(row).itemSync(), `min of ${n} with NaN at ${at}`).toBeNaN();
          expect(
            t
              .matmul(row, t.ones([n, 3]))
              .dataSync()
              .every(Number.isNaN),
            `matmul of ${n}`,
          ).toBe(true);
          expect(t.softmax(row).dataSync().every(Number.isNaN), `softmax of ${n}`).toBe(true);
          expect(
            t
              .rmsNorm(row, t.ones([n]))
              .dataSync()
              .every(Number.isNaN),
            `rmsNorm of ${n}`,
          ).toBe(true);
          expect(t.crossEntropy(row, ids(0)).itemSync(), `crossEntropy of ${n}`).toBeNaN();
        }
      }
    });
  });

  it("in one row of keys or values reach the rows that see it, and no other", () => {
    scope(() => {
      const q = sample([1, 9, 2, 4], 1, { dtype: "float32" });
      const k = sample([1, 9, 1, 4], 2, { dtype: "float32" });
      const poison = t.tensor(
        Float32Array.from({ length: 9 }, (_, i) => (i === 4 ? nan : 0)),
        { shape: [1, 9, 1, 1] },
      );
      const seen = (out: Tensor) =>
        Array.from({ length: 9 }, (_, i) =>
          out
            .slice(1, i, i + 1)
            .dataSync()
            .some(Number.isNaN),
        );
      const expected = [4, 5, 6].reduce((rows, i) => rows.with(i, true), new Array<boolean>(9).fill(false));
      expect(seen(t.attention(q, k.add(poison), k, { window: 3 })), "key").toEqual(expected);
      expect(seen(t.attention(q, k, k.add(poison), { window: 3 })), "value").toEqual(expected);
      const keys1 = seen(t.simplicialAttention(q, k.add(poison), k, k, k, { w1: 3, w2: 2 }));
      const values1 = seen(t.simplicialAttention(q, k, k, k.add(poison), k, { w1: 3, w2: 2 }));
      for (const rows of [keys1, values1]) expect(rows, "2-simplicial").toEqual(expected);
    });
  });
});
