/** The coordinate check of muP (arXiv:2203.03466, figure 5): after some steps the sizes of activations must not depend on the width. */
import { add, mul, scope, sign, tensor, valueAndGrad } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { Transformer, type TransformerConfig } from "../src/index.js";

const widths = [32, 64, 128, 256];
const ids = (n: number, offset: number) => Int32Array.from({ length: n }, (_, i) => (i * i + 3 * i + offset) % 17);
const batch = {
  tokens: tensor(ids(64, 0), { shape: [2, 32] }),
  targets: tensor(ids(64, 5), { shape: [2, 32] }),
};

/** Root mean square of the scores' changes after a few steps of the signs of the gradients, which Adam's first steps are. */
function changeOfScores(change: Partial<TransformerConfig>, dModel: number): number {
  const model = new Transformer({
    vocabSize: 17,
    numLayers: 2,
    numHeads: 4,
    maxSeqLen: 32,
    dModel,
    ffnDim: 2 * dModel,
    initStd: 0.1,
    ...change,
  });
  const scales = model.learningRateScales();
  let params = model.init(1);
  const scores = () => scope(() => model.logits(params, batch.tokens).dataSync());
  const before = scores();
  for (let step = 0; step < 4; step++) {
    params = scope(() => {
      const { grads } = valueAndGrad((p) => model.loss(p, batch), params);
      const entries = Object.entries(params).map(
        ([name, p]) => [name, add(p, mul(sign(grads[name]!), -0.004 * scales[name]!))] as const,
      );
      return Object.fromEntries(entries);
    });
  }
  const after = Array.from(scores());
  const square = after.reduce((sum, z, i) => sum + (z - before[i]!) ** 2, 0);
  model.dispose();
  return Math.sqrt(square / after.length);
}

describe("muP", () => {
  it("steps routers as other matrices over the width, whose scores would move ever farther", () => {
    const shape = { vocabSize: 17, numLayers: 1, numHeads: 4, maxSeqLen: 32, dModel: 128 };
    const model = new Transformer({ ...shape, mup: { baseWidth: 32 }, experts: { numExperts: 4 } });
    expect(model.learningRateScales()["model.layers.0.mlp.router.weight"]).toBe(0.25);
    model.dispose();
  });

  it("moves scores as far at eight times the width, where the usual parametrisation moves them ever farther", () => {
    const growth = (change: Partial<TransformerConfig>) => {
      const sizes = widths.map((width) => changeOfScores(change, width));
      return sizes.at(-1)! / sizes[0]!;
    };
    const [mup, usual] = [growth({ mup: { baseWidth: 32 } }), growth({})];
    expect(mup).toBeGreaterThan(0.6);
    expect(mup).toBeLessThan(1.6);
    expect(usual).toBeGreaterThan(3);
  });

  it("is the usual parametrisation at its base width but for the scale of attention and the initial weights", () => {
    const model = new Transformer({
      vocabSize: 17,
      numLayers: 1,
      numHeads: 4,
      maxSeqLen: 8,
      dModel: 32,
      mup: { baseWidth: 32 },
    });
    expect(new Set(Object.values(model.learningRateScales()))).toEqual(new Set([1]));
    expect(model.config.attentionScale).toBe(1 / 8);
    const wide = new Transformer({
      vocabSize: 17,
      numLayers: 1,
      numHeads: 4,
      maxSeqLen: 8,
      dModel: 128,
      mup: { baseWidth: 32 },
    });
    const scales = wide.learningRateScales();
    expect(scales["model.layers.0.mlp.up_proj.weight"]).toBe(1 / 4);
    expect([scales["model.embed_tokens.weight"], scales["lm_head.weight"], scales["model.norm.weight"]]).toEqual([
      1, 1, 1,
    ]);
  });
});

it("begins every block as the identity with zeroInitResidual", () => {
  const model = new Transformer({
    vocabSize: 17,
    numLayers: 3,
    numHeads: 4,
    maxSeqLen: 8,
    dModel: 32,
    zeroInitResidual: true,
  });
  const shallow = new Transformer({
    vocabSize: 17,
    numLayers: 1,
    numHeads: 4,
    maxSeqLen: 8,
    dModel: 32,
    zeroInitResidual: true,
  });
  const params = model.init(1);
  const tokens = tensor(ids(8, 1), { shape: [1, 8] });
  expect([...model.logits(params, tokens).dataSync()]).toEqual([...shallow.logits(params, tokens).dataSync()]);
});
