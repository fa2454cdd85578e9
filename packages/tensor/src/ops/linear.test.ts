import { describe, expect, it } from "vitest";
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

describe("products of 16-bit numbers", () => {
  it("refuses operands of different dtypes", () => {
    expect(() => matmul(tensor([[1]]).astype("bfloat16"), tensor([[1]]))).toThrow(/a is bfloat16 and b is float32/);
  });
});
