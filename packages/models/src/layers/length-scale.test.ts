import { captureStep, ones, scope, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { Transformer } from "../transformer.js";
import { lengthScaled } from "./length-scale.js";

describe("lengthScaled", () => {
  it("leaves queries up to scaleFrom as they are, the same tensor if there is no other", () => {
    const q = ones([1, 6, 1, 2]);
    expect(lengthScaled(q, [{ start: 0, length: 6 }], undefined)).toBe(q);
    expect(lengthScaled(q, [{ start: 2, length: 6 }], 8)).toBe(q);
    // Positions 3 … 8 see 4 … 9 keys; only the last sees more than 8.
    const values = [...lengthScaled(q, [{ start: 3, length: 6 }], 8).dataSync()];
    expect(values.slice(0, 10)).toEqual(Array(10).fill(1));
    expect(values[11]).toBeCloseTo(Math.log(9) / Math.log(8), 6);
  });

  it("counts each of several sequences from its own start", () => {
    const ranges = [
      { start: 2, length: 1 },
      { start: 9, length: 2 },
    ];
    const values = lengthScaled(ones([1, 3, 1, 1]), ranges, 4).dataSync();
    for (const [i, n] of [3, 10, 11].entries())
      expect(values[i]).toBeCloseTo(Math.max(1, Math.log(n) / Math.log(4)), 6);
  });

  it.each(["float32", "bfloat16", "float64"] as const)("knows its place after ten million tokens in %s", (dtype) => {
    const start = 10_000_000;
    const scaled = scope(() =>
      lengthScaled(ones([1, 3, 2, 4], { dtype }), [{ start, length: 3 }], 512).astype("float64"),
    ).dataSync();
    const roundoff = { float32: 2 ** -22, bfloat16: 2 ** -8, float64: 2 ** -50 }[dtype];
    for (const [i, value] of scaled.entries()) {
      const expected = Math.log(start + 1 + Math.floor(i / 8)) / Math.log(512);
      expect(Math.abs(value / expected - 1)).toBeLessThan(roundoff);
    }
  });

  it("works in a captured step", () => {
    const attention = [{ kind: "dot", rope: false, scaleFrom: 4 } as const];
    const model = new Transformer({ vocabSize: 9, dModel: 8, numLayers: 1, numHeads: 2, maxSeqLen: 16, attention });
    const params = model.init(2);
    const form = { shape: [1, 12], dtype: "int32" } as const;
    using step = captureStep((batch) => model.loss(params, batch), { inputs: { tokens: form, targets: form } });
    for (let n = 0; n < 5; n++) {
      const tokens = Int32Array.from({ length: 12 }, (_, i) => (i * i + n) % 9);
      const targets = tokens.map((id) => (id + 1) % 9);
      const batch = { tokens: tensor(tokens, { shape: [1, 12] }), targets: tensor(targets, { shape: [1, 12] }) };
      expect(step({ tokens, targets }).itemSync()).toBe(model.loss(params, batch).itemSync());
    }
    expect(step.mode).toBe("captured");
  });
});
