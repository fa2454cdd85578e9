import { memory, scope, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { AdamW } from "./fused-adamw.js";

describe("AdamW", () => {
  it("takes the first step by hand", () => {
    // m = 0.1·0.5, v = 0.001·0.25; m̂ = 0.5, v̂ = 0.25: p = 1·(1 − 0.1·0.01) − 0.1·0.5/(0.5 + 1e-8) = 0.999 − 0.1
    const p = Float64Array.of(1);
    new AdamW({ p }, { learningRate: 0.1 }).step({ p: Float64Array.of(0.5) });
    expect(p[0]).toBeCloseTo(0.899, 8);
  });

  it("changes a tensor in place and keeps its memory use from step to step", () => {
    const before = memory().tensors;
    const p = tensor(Float64Array.of(1, -1));
    const grads = { p: tensor(Float64Array.of(0.5, -2)) };
    const optimizer = new AdamW({ p }, { learningRate: 0.1, weightDecay: 0, maxGradNorm: 1 });
    optimizer.step(grads);
    const after = memory();
    for (let i = 0; i < 20; i++) optimizer.step(grads);
    expect(memory()).toEqual(after);
    const [a, b] = p.dataSync();
    expect(a).toBeCloseTo(1 - 21 * 0.1, 5); // a constant gradient gives steps of lr
    expect(b).toBeCloseTo(-1 + 21 * 0.1, 5);
    for (const x of [optimizer, p, grads.p]) x.dispose();
    expect(memory().tensors).toBe(before);
  });

  it("keeps its state when it is made inside a scope", () => {
    const p = Float32Array.of(1);
    using parameter = tensor(p);
    using grad = tensor([1]);
    const optimizer = scope(() => {
      const made = new AdamW({ p: parameter });
      return { made };
    }).made;
    optimizer.step({ p: grad });
    expect(parameter.itemSync()).toBeLessThan(1);
    optimizer.dispose();
  });
});
