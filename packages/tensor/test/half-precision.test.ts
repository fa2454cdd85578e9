/** Every operation in bfloat16 and float16, held against float32 on the same (rounded) numbers. */
import { describe, expect, it } from "vitest";
import * as t from "../src/index.js";
import { scope, type Tensor, valueAndGrad } from "../src/index.js";
import { expectClose, halfRoundoff, largest } from "./compare.js";
import { sample } from "./numbers.js";
import { type OpCase, opCases } from "./op-cases.js";

const halves = ["bfloat16", "float16"] as const;
type Half = (typeof halves)[number];

/** What an op computes and its gradients for a weighted sum of the results. */
function run({ compute }: OpCase, inputs: readonly Tensor[], half: Half) {
  const { value, grads, aux } = valueAndGrad((xs: readonly Tensor[]) => {
    const out = compute(...xs);
    const weights = sample(out.shape, 99, { dtype: half, low: 0.5, high: 1.5 });
    return { loss: out.mul(weights.astype(out.dtype)).sum(), aux: out };
  }, inputs);
  value.dispose();
  return { out: aux, grads };
}

const float32Of = (x: Tensor) => x.astype("float32").dataSync();

/**
 * Sums, means and softmaxes are accumulated in float32; what is rounded to half precision is each array between two kernels. Ops and their
 * gradients are made of a few kernels, and numbers on the way may be somewhat larger than the last ones.
 */
function tolerance(half: Half, expected: ArrayLike<number>) {
  return { atol: 8 * halfRoundoff[half] * (1 + largest(expected)) };
}

describe.each(halves)("%s", (half) => {
  it.each(opCases.map((c) => [c.name, c] as const))("%s agrees with float32", (_name, opCase) => {
    scope(() => {
      const { range = [-1, 1], seed = 7 } = opCase;
      const inputs = opCase.inputs.map((shape, i) =>
        sample(shape, seed + i, { dtype: half, low: range[0], high: range[1] }),
      );
      const actual = run(opCase, inputs, half);
      const expected = run(
        opCase,
        inputs.map((x) => x.astype("float32")),
        half,
      );
      // Losses are float32: a mean over many tokens is worth its digits.
      expect([half, "float32"]).toContain(actual.out.dtype);
      const out = float32Of(expected.out);
      expectClose(float32Of(actual.out), out, tolerance(half, out), "result");
      for (const [i, grad] of expected.grads.entries()) {
        expect(actual.grads[i]!.dtype).toBe(half);
        const values = float32Of(grad);
        expectClose(float32Of(actual.grads[i]!), values, tolerance(half, values), `gradient ${i}`);
      }
    });
  });

  it("rounds a result once, however long the sum", () => {
    const x = t.full([4096], 0.125, { dtype: half });
    expect(float32Of(x.sum())[0]).toBe(512); // one by one in bfloat16, the sum would stay at 32
    expect(float32Of(t.matmul(x, x))[0]).toBe(64);
  });

  it("scales the gradient of a loss before it is rounded, so that a loss scale keeps it from underflow", () => {
    const hidden = t.full([1, 4], 2 ** -24, { dtype: half }); // the smallest float16; half of it is none
    const weight = t.zeros([2, 4], { dtype: half });
    const ids = t.tensor(Int32Array.of(0));
    const { grads } = valueAndGrad((w: Tensor) => t.linearCrossEntropy(hidden, w, ids).mul(1024), weight);
    expect([...float32Of(grads)]).toEqual([-1, -1, -1, -1, 1, 1, 1, 1].map((sign) => sign * 2 ** -15));
  });

  it("takes strided, broadcast and empty arrays", () => {
    const x = t.tensor(
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      { dtype: half },
    );
    const row = t.tensor([1, 2], { dtype: half }).expand([3, 2]);
    expect([...float32Of(x.T.add(row))]).toEqual([2, 6, 3, 7, 4, 8]);
    expect([...float32Of(t.softmax(row.slice(0, 0, 0)))]).toEqual([]);
    expect(t.greater(x, 3).dataSync()).toEqual(Uint8Array.of(0, 0, 0, 1, 1, 1));
  });

  it("needs rope's tables in float32, where their angles are exact enough", () => {
    const x = t.zeros([1, 2, 1, 4], { dtype: half });
    const { cos, sin } = t.ropeTables(2, 4);
    expect(t.rope(x, cos, sin).dtype).toBe(half);
    expect(() => t.rope(x, cos.astype(half), sin.astype(half))).toThrow(/must be float32; received/);
  });
});
