import { describe, expect, it } from "vitest";
import { expectClose, sumError, unitRoundoff } from "../../../test/compare.js";
import { numbers } from "../../../test/numbers.js";
import * as t from "../../index.js";

const rtol = 8 * unitRoundoff.float32;

describe("mseLoss, l1Loss, huberLoss", () => {
  const prediction = t.tensor([1, 2, 5]);
  const target = t.tensor([1, 4, 1]);

  it("compute worked examples", () => {
    // Differences 0, −2, 4: squares 0 + 4 + 16, absolute values 0 + 2 + 4, Huber with delta 3: 0 + 2 + 3 · (4 − 1.5).
    expect(t.mseLoss(prediction, target, { reduction: "sum" }).itemSync()).toBe(20);
    expect(t.l1Loss(prediction, target).itemSync()).toBe(2);
    expect([...t.huberLoss(prediction, target, { delta: 3, reduction: "none" }).dataSync()]).toEqual([0, 2, 7.5]);
  });

  it("give opposite gradients to both sides", () => {
    const { grads } = t.valueAndGrad(([p, y]: t.Tensor[]) => t.mseLoss(p!, y!), [prediction, target]);
    expectClose(grads[0]!.dataSync(), [0, -4 / 3, 8 / 3], { rtol });
    expectClose(grads[1]!.dataSync(), [0, 4 / 3, -8 / 3], { rtol });
    const slope = t.grad((p: t.Tensor) => t.l1Loss(p, target, { reduction: "sum" }), prediction);
    expect([...slope.dataSync()]).toEqual([0, -1, 1]);
  });

  it("add up many float32 losses without drift", () => {
    const n = 1_000_000;
    const loss = t.mseLoss(t.full([n], 1.1), t.zeros([n]), { reduction: "sum" }).itemSync();
    expectClose([loss], [n * Math.fround(Math.fround(1.1) ** 2)], {
      rtol: 2 * unitRoundoff.float32 + sumError(64, "float32"),
    });
  });
});

describe("sigmoidCrossEntropy", () => {
  const plain = (z: number, y: number, p = 1) => p * y * Math.log1p(Math.exp(-z)) + (1 - y) * Math.log1p(Math.exp(z));

  it("agrees with its formula", () => {
    const z = numbers(1000, 1, -20, 20);
    const y = numbers(1000, 2, 0, 1);
    const loss = t.sigmoidCrossEntropy(t.tensor(z, { dtype: "float32" }), t.tensor(y, { dtype: "float32" }), {
      reduction: "none",
      posWeight: t.tensor(3),
    });
    expectClose(
      loss.dataSync(),
      z.map((v, i) => plain(v, y[i]!, 3)),
      { rtol },
    );
  });

  it("neither overflows nor cancels for sure answers", () => {
    const z = t.tensor([1000, -1000, 1000, 50]);
    const y = t.tensor([1, 0, 0, 1]);
    const loss = t.sigmoidCrossEntropy(z, y, { reduction: "none" }).dataSync();
    expectClose(loss, [0, 0, 1000, Math.exp(-50)], { rtol });
  });

  it("weighs elements, and means over all of them", () => {
    const z = t.tensor([0, 0]);
    const y = t.tensor([1, 0]);
    // Each loss is ln 2: (2 · ln 2 + 0) / 2.
    expectClose([t.sigmoidCrossEntropy(z, y, { weights: t.tensor([2, 0]) }).itemSync()], [Math.LN2], { rtol });
    const { grads } = t.valueAndGrad(([a, b]: t.Tensor[]) => t.sigmoidCrossEntropy(a!, b!), [z, y]);
    expect([...grads[0]!.dataSync()]).toEqual([-0.25, 0.25]);
    expect([...grads[1]!.dataSync()]).toEqual([0, 0]);
  });
});

describe("klDivergence", () => {
  it("computes a worked example", () => {
    // p = (1/2, 1/2), q = (1/4, 3/4): ½ ln 2 + ½ ln(2/3) = ½ ln(4/3).
    const logs = (...p: number[]) => t.tensor([p.map(Math.log)]);
    expectClose([t.klDivergence(logs(0.5, 0.5), logs(0.25, 0.75)).itemSync()], [Math.log(4 / 3) / 2], { rtol });
  });

  it("is 0 for equal distributions and ignores what p excludes", () => {
    const p = t.tensor([[0, -Infinity]]);
    expect(t.klDivergence(p, p).itemSync()).toBe(0);
    expect(t.klDivergence(p, t.logSoftmax(t.tensor([[0, 0]]))).itemSync()).toBeCloseTo(Math.LN2, 6);
    const dq = t.grad((q: t.Tensor) => t.klDivergence(p, q), t.tensor([[-1, -2]]));
    expect([...dq.dataSync()]).toEqual([-1, -0]);
  });

  it("is never negative", () => {
    for (let seed = 0; seed < 20; seed++) {
      const [p, q] = [1, 2].map((k) =>
        t.logSoftmax(t.tensor(numbers(70, 10 * seed + k, -5, 5), { shape: [7, 10], dtype: "float64" })),
      );
      const rows = t.klDivergence(p!, q!, { reduction: "none" });
      expect(rows.shape).toEqual([7]);
      for (const row of rows.dataSync()) expect(row).toBeGreaterThan(-64 * unitRoundoff.float64);
    }
  });
});

describe.each(["bfloat16", "float16"] as const)("losses of %s", (dtype) => {
  it("are float32, from numbers that are not rounded on the way", () => {
    // 1 + 2⁻⁷ has neighbours in bfloat16 at distances of 2⁻⁷; its square, (1 + 2⁻⁷)² = 1 + 2⁻⁶ + 2⁻¹⁴, lies between two of them, and of float16.
    const x = t.tensor([1 + 2 ** -7], { dtype });
    const zero = t.zeros([1], { dtype });
    const { value, grads } = t.valueAndGrad((p: t.Tensor) => t.mseLoss(p, zero), x);
    expect([value.dtype, value.itemSync()]).toEqual(["float32", 1 + 2 ** -6 + 2 ** -14]);
    expect([grads.dtype, grads.astype("float32").itemSync()]).toEqual([dtype, 2 + 2 ** -6]);
    expect(t.l1Loss(x, zero, { reduction: "none" }).dtype).toBe("float32");
    expect(t.huberLoss(x, zero).dtype).toBe("float32");
    expect(t.sigmoidCrossEntropy(x, zero, { posWeight: x, weights: x }).dtype).toBe("float32");
    expect(t.klDivergence(zero, zero).dtype).toBe("float32");
  });
});
