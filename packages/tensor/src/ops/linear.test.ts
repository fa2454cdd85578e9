import { describe, expect, it } from "vitest";
import { expectClose, halfRoundoff, largest, sumError } from "../../test/compare.js";
import { sample } from "../../test/numbers.js";
import { gelu, linear, matmul, randomNormal, relu, silu, type Tensor, tensor, valueAndGrad } from "../index.js";

const activations = {
  relu,
  gelu: (x: Tensor) => gelu(x),
  geluErf: (x: Tensor) => gelu(x, { approximate: "none" }),
  silu,
};
const names = Object.keys(activations) as (keyof typeof activations)[];
const normal = (seed: number, ...shape: number[]) => randomNormal({ seed }, shape, { dtype: "float64" });

describe("linear with an activation", () => {
  it("applies it to x · weightᵀ + bias", () => {
    // [1, 2] · [[3, 1], [-4, 1]]ᵀ = [5, -2]; + [1, 1] = [6, -1]
    const out = linear(tensor([[1, 2]]), tensor([[3, 1], [-4, 1]]), tensor([1, 1]), { activation: "relu" }); // biome-ignore format: a matrix
    expect([...out.dataSync()]).toEqual([6, 0]);
  });

  it.each(names)("gives the numbers and the gradients of %s after linear", (activation) => {
    for (const [n, i, o] of [
      [1, 1, 1],
      [1, 65, 40],
      [5, 7, 3],
      [33, 20, 47],
    ] as const) {
      // biome-ignore format: a table
      const params = [normal(1, n, i), normal(2, o, i), normal(3, o)];
      const weights = normal(4, n, o);
      const run = (layer: (p: Tensor[]) => Tensor) =>
        valueAndGrad((p: Tensor[]) => layer(p).mul(weights).sum(), params);
      const fused = run(([x, w, b]) => linear(x!, w!, b!, { activation }));
      const plain = run(([x, w, b]) => activations[activation](linear(x!, w!, b!)));
      // The same operations in the same order.
      expect(fused.value.itemSync()).toBe(plain.value.itemSync());
      for (const [index, grad] of fused.grads.entries()) {
        expect([...grad.dataSync()]).toEqual([...plain.grads[index]!.dataSync()]);
      }
    }
  });

  it("is the activation of the bias when there is nothing to sum up", () => {
    const out = linear(tensor(new Float32Array(0)).reshape([2, 0]), tensor(new Float32Array(0)).reshape([3, 0]), tensor([-1, 0, 2]), { activation: "relu" }); // biome-ignore format: one call
    expect([...out.dataSync()]).toEqual([0, 0, 2, 0, 0, 2]);
  });

  it("refuses a name that it does not know", () => {
    const wrong = { activation: "swish" as "silu" };
    expect(() => linear(tensor([[1]]), tensor([[1]]), undefined, wrong)).toThrow(
      /\[linear\] activation must be one of relu, gelu, geluErf, silu; received "swish"/,
    );
  });
});

/** `a[m, k] · b[n, k]ᵀ` in float64. */
function plainProduct(a: ArrayLike<number>, b: ArrayLike<number>, m: number, n: number, k: number): Float64Array {
  return Float64Array.from({ length: m * n }, (_, at) => {
    const [i, j] = [Math.floor(at / n), at % n];
    let sum = 0;
    for (let p = 0; p < k; p++) sum += a[i * k + p]! * b[j * k + p]!;
    return sum;
  });
}

/** All numbers of a 16-bit format with so many bits of exponent, infinities and NaNs among them. */
function allNumbers(exponentBits: number): Float32Array {
  const fractionBits = 15 - exponentBits;
  const top = 2 ** exponentBits - 1;
  const bias = 2 ** (exponentBits - 1) - 1;
  return Float32Array.from({ length: 2 ** 16 }, (_, bits) => {
    const fraction = (bits % 2 ** fractionBits) / 2 ** fractionBits;
    const exponent = (bits >> fractionBits) & top;
    if (exponent === top && fraction > 0) return Number.NaN;
    const size = exponent === top ? Number.POSITIVE_INFINITY : exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias); // biome-ignore format: a case each
    return bits >= 2 ** 15 ? -size : size;
  });
}

describe.each(["bfloat16", "float16"] as const)("products of %s", (dtype) => {
  const wide = (x: Tensor) => x.astype("float64").dataSync() as Float64Array;
  // The sum is made in float32, of terms whose sizes add up to at most `k` times the largest; then it is rounded once.
  const tolerance = (k: number, a: Float64Array, b: Float64Array) => ({
    atol: sumError(k, "float32") * k * largest(a) * largest(b),
    rtol: halfRoundoff[dtype] * (1 + halfRoundoff[dtype]),
  });
  const shapes: [m: number, n: number, k: number][] = [];
  for (const m of [1, 2, 3, 4, 5, 7, 8, 9, 15, 29]) {
    for (const n of [1, 7, 8, 16, 33, 130]) for (const k of [1, 15, 16, 65, 257]) shapes.push([m, n, k]);
  }
  shapes.push([130, 70, 1100], [3, 300, 4100]);

  it("are those of float64, summed in float32 and rounded once, in every layout", () => {
    for (const [m, n, k] of shapes) {
      const [a, b] = [sample([m, k], 1, { dtype }), sample([n, k], 2, { dtype })];
      const [x, y] = [wide(a), wide(b)];
      const expected = plainProduct(x, y, m, n, k);
      for (const left of [a, a.transpose().clone().transpose()]) {
        for (const right of [b, b.transpose().clone().transpose()]) {
          const out = matmul(left, right.transpose());
          expect(out.dtype).toBe(dtype);
          expectClose(wide(out), expected, tolerance(k, x, y), `${m}×${n}×${k}`);
        }
      }
    }
  });

  it("take a bias and an activation before they are rounded", () => {
    for (const [m, n, k] of [
      [1, 40, 70],
      [6, 33, 20],
      [35, 50, 64],
    ] as const) {
      // biome-ignore format: a table
      const [x, w, b] = [sample([m, k], 1, { dtype }), sample([n, k], 2, { dtype }), sample([n], 3, { dtype })];
      const bias = wide(b);
      const sums = plainProduct(wide(x), wide(w), m, n, k).map((sum, at) => Math.max(0, sum + bias[at % n]!));
      const actual = wide(linear(x, w, b, { activation: "relu" }));
      expectClose(actual, sums, tolerance(k + 1, wide(x), wide(w)), `${m}×${n}×${k}`);
    }
  });

  it("with 1 are the numbers themselves, all of them", () => {
    const values = allNumbers(dtype === "float16" ? 5 : 8);
    const x = tensor(values, { dtype });
    const one = tensor([1], { dtype });
    expectClose(wide(matmul(x.reshape([-1, 1]), one.reshape([1, 1]))), values, {}, "a few columns");
    expectClose(wide(matmul(one.reshape([1, 1]), x.reshape([1, -1]))), values, {}, "a few rows");
    const packed = wide(matmul(x.reshape([-1, 1]), one.expand([1, 16])));
    expectClose(
      packed.filter((_, i) => i % 16 === 15),
      values,
      {},
      "packed",
    );
  });
});

describe("products of 16-bit numbers", () => {
  it("refuses operands of different dtypes", () => {
    expect(() => matmul(tensor([[1]]).astype("bfloat16"), tensor([[1]]))).toThrow(/a is bfloat16 and b is float32/);
  });
});
