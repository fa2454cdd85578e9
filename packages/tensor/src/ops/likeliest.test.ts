import { describe, expect, it } from "vitest";
import { expectClose } from "../../test/compare.js";
import * as t from "../index.js";

describe("likeliestInto", () => {
  it.each(["float32", "float64", "bfloat16"] as const)("gives ids, scores and log-sum-exps of %s rows", (dtype) => {
    for (const [N, V] of [
      [1, 1],
      [3, 7],
      [2, 1000],
      [1, 50_304],
    ] as const) {
      const all = t.randomNormal({ seed: V }, [N, V + 8]).astype(dtype);
      for (const logits of [t.slice(all, 1, 0, V), t.slice(all, 1, 3, V + 3).clone()]) {
        const ids = t.zeros([N], { dtype: "int32" });
        const [id, score, sum] = t.split(t.likeliestInto(ids, logits), [1, 1, 1], 0) as [t.Tensor, t.Tensor, t.Tensor];
        const wide = logits.astype(dtype === "float64" ? "float64" : "float32");
        const wanted = [...t.argMax(wide, { axis: 1 }).dataSync()];
        expect([...ids.dataSync()]).toEqual(wanted);
        expect([...id.dataSync()]).toEqual(wanted);
        expect([...score.dataSync()]).toEqual([...t.max(wide, { axis: 1 }).dataSync()]);
        // Terms of a sum in another order, of numbers of about ln V.
        expectClose(sum.dataSync(), t.logSumExp(wide, { axis: 1 }).dataSync(), { atol: 1e-5 });
      }
    }
  });

  it("takes the first of equals and the first NaN, and rows of nothing but −∞", () => {
    const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN];
    const logits = t.tensor([1, 5, 5, -inf, nan, 3, nan, inf, -inf, -inf, -inf, -inf, 2, inf, inf, 0], {
      shape: [4, 4],
    });
    const ids = t.zeros([4], { dtype: "int32" });
    const found = [...t.likeliestInto(ids, logits).dataSync()];
    expect([...ids.dataSync()]).toEqual([1, 0, 0, 1]);
    expect(found.slice(4, 8)).toEqual([5, nan, -inf, inf]);
    expect(found[8]).toBeCloseTo(Math.log(2 * Math.exp(5) + Math.E), 5);
    expect(found.slice(9)).toEqual([nan, -inf, inf]);
  });

  it("refuses other shapes and dtypes", () => {
    const ids = t.zeros([2], { dtype: "int32" });
    const wrong: [() => t.Tensor, string][] = [
      [() => t.likeliestInto(ids, t.zeros([3, 4])), "received [3, 4] and [2]"],
      [() => t.likeliestInto(ids, t.zeros([2])), "expected logits [N, V]"],
      [() => t.likeliestInto(t.zeros([2]), t.zeros([2, 3])), "ids must be int32"],
    ];
    for (const [call, message] of wrong) expect(call).toThrow(message);
  });
});
