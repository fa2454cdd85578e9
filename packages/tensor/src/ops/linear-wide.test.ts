import { describe, expect, it } from "vitest";
import { expectClose, sumError } from "../../test/compare.js";
import * as t from "../index.js";
import { linear, linearWide, randomNormal, type Tensor, valueAndGrad } from "../index.js";

const normal = (seed: number, shape: number[], dtype: t.DType = "bfloat16") =>
  randomNormal({ seed }, shape).astype(dtype);
const widened = (x: Tensor, weight: Tensor) => linear(x.astype("float32"), weight.astype("float32"));

describe("linearWide", () => {
  it.each([
    [1, 1, 1],
    [5, 64, 8],
    [300, 40, 6],
    [33, 8, 8],
  ])("gives the sums of bfloat16 [%d, %d] and its gradients with the digits of float32, for %d outputs", (N, I, O) => {
    const [x, weight, slope] = [normal(1, [N, I]), normal(2, [O, I]), normal(3, [N, O], "float32")];
    const run = (layer: typeof linearWide) =>
      valueAndGrad(
        (p) => {
          const y = layer(p.x, p.weight);
          return { loss: y.mul(slope).sum(), aux: y };
        },
        { x, weight },
      );
    const [got, want] = [run(linearWide), run(widened)];
    expect(got.aux.dtype).toBe("float32");
    expectClose(got.aux.dataSync(), want.aux.dataSync(), { atol: 16 * sumError(I, "float32") });
    for (const name of ["x", "weight"] as const) {
      expect(got.grads[name].dtype).toBe("bfloat16");
      // Both are rounded once, perhaps to different sides; had the slope been rounded first, sums that cancel would be further apart.
      const terms = name === "x" ? O : N;
      expectClose(got.grads[name].astype("float32").dataSync(), want.grads[name].astype("float32").dataSync(), {
        rtol: 2 ** -7,
        atol: 32 * sumError(terms, "float32"),
      });
    }
  });

  it("keeps the digits of a slope that bfloat16 hasn't", () => {
    // 1 + 2⁻²³ and −1: rounded, nothing would remain.
    const slope = t.tensor([[1 + 2 ** -23], [-1]]);
    const [x, weight] = [t.ones([2, 8], { dtype: "bfloat16" }), t.ones([1, 8], { dtype: "bfloat16" })];
    const { grads } = valueAndGrad((p) => linearWide(p.x, p.weight).mul(slope).sum(), { x, weight });
    expect([...grads.weight.astype("float32").dataSync()]).toEqual(new Array(8).fill(2 ** -23));
  });

  it("has infinite gradients of infinite slopes, and NaN where there is one", () => {
    const [N, I, O] = [4, 6, 3];
    const [x, weight] = [normal(1, [N, I]), normal(2, [O, I])];
    // A row each: finite; infinite; of both signs, so that sums have no value; NaN. And one that bfloat16 rounds to infinity.
    const [inf, largest] = [Number.POSITIVE_INFINITY, 3.4e38];
    const rows = [
      [1, -2, 1e30],
      [0.1, inf, -3],
      [-inf, inf, 0],
      [1, Number.NaN, 2],
      [largest, 0.5, -1],
    ];
    for (const used of [
      [0, 0, 0, 0],
      [0, 0, 1, 0],
      [1, 0, 0, 2],
      [3, 0, 1, 0],
    ]) {
      const slope = t.tensor(used.map((row) => rows[row]!));
      const grads = (layer: typeof linearWide) =>
        valueAndGrad((p) => layer(p.x, p.weight).mul(slope).sum(), { x, weight }).grads;
      const [got, want] = [grads(linearWide), grads(widened)];
      for (const name of ["x", "weight"] as const) {
        const kind = (value: number) => (Number.isFinite(value) ? "finite" : value);
        const kinds = (grad: Tensor) => Array.from(grad.astype("float32").dataSync(), kind);
        expect(kinds(got[name]), `${name} of ${used}`).toEqual(kinds(want[name]));
      }
    }
    const slope = t.tensor([rows[4]!]);
    const { grads } = valueAndGrad((p) => linearWide(p.x, weight).mul(slope).sum(), { x: normal(3, [1, I]) });
    const signs = (values: ArrayLike<number>) => Array.from(values, (value) => inf * value);
    expect(Array.from(grads.x.astype("float32").dataSync())).toEqual(
      signs(weight.astype("float32").dataSync().slice(0, I) as Float32Array),
    );
  });

  it.each(["float32", "float64", "float16"] as const)("is a layer in the wider dtype of %s", (dtype) => {
    const [x, weight] = [normal(1, [7, 5], dtype), normal(2, [3, 5], dtype)];
    const wide = dtype === "float64" ? dtype : "float32";
    const y = linearWide(x, weight);
    expect(y.dtype).toBe(wide);
    expect(y.dataSync()).toEqual(linear(x.astype(wide), weight.astype(wide)).dataSync());
  });

  it("has no rows of nothing", () => {
    expect(linearWide(t.zeros([0, 5], { dtype: "bfloat16" }), normal(1, [3, 5])).shape).toEqual([0, 3]);
  });

  it("refuses what doesn't fit", () => {
    expect(() => linearWide(normal(1, [2, 3]), normal(1, [3, 4]))).toThrow(
      "[linearWide] expected x [N, I] and weight [O, I]; received [2, 3] and [3, 4].",
    );
    expect(() => linearWide(normal(1, [1, 2, 3]), normal(1, [3, 3]))).toThrow(t.ShapeError);
    expect(() => linearWide(normal(1, [2, 3]), normal(1, [4, 3], "float32"))).toThrow(t.DTypeError);
  });
});
