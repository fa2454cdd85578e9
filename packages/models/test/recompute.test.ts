/** Blocks of which the backward pass has the inputs only. */
import { memory, resetPeakMemory, scope, sync, type Tensor, tensor, valueAndGrad } from "@llmeff/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { type LossOptions, Transformer, type TransformerConfig } from "../src/index.js";

const base: TransformerConfig = { vocabSize: 11, dModel: 16, numLayers: 3, numHeads: 4, maxSeqLen: 16, initStd: 0.3 };
const configs: Record<string, TransformerConfig> = {
  pre: base,
  "tied, layer norm": { ...base, norm: "layer", tieEmbeddings: true },
  sandwich: { ...base, block: "sandwich" },
  parallel: { ...base, block: "parallel" },
  post: { ...base, block: "post" },
  experts: { ...base, experts: { numExperts: 4, denseLayers: 1, auxCoef: 0.01, zCoef: 0.01, jitter: 0.1 } },
  "biased routers": { ...base, experts: { numExperts: 4, score: "sigmoid", routerBias: true, capacityFactor: 1 } },
  simplicial: { ...base, attention: [{ kind: "simplicial" }, { kind: "dot", window: 3 }] },
};

const batch = () => ({
  tokens: tensor(Int32Array.of(1, 5, 3, 9, 0, 2, 7, 7), { shape: [2, 4] }),
  targets: tensor(Int32Array.of(5, 3, -100, 0, 2, 7, 7, 1), { shape: [2, 4] }),
});
const bits = (x: Tensor) => Array.from(x.dataSync());

describe.each(Object.entries(configs))("recompute: %s", (_name, config) => {
  const model = new Transformer(config);
  const params = model.init(1);
  const state = model.initState();
  afterAll(() => model.dispose());

  const run = (options: LossOptions) =>
    scope(() => {
      const given = { state, jitterKey: (layer: number) => ({ seed: 1, stream: layer }), ...options };
      const { value, grads } = valueAndGrad(
        (p: Record<string, Tensor>) => model.lossParts(p, batch(), given).loss,
        params,
      );
      return {
        loss: value.itemSync(),
        grads: Object.entries(grads).map(([name, grad]) => [name, bits(grad)] as const),
      };
    });

  it("has the same loss and gradients, bit for bit", () => {
    const plain = run({});
    expect(plain.grads.some(([, grad]) => grad.some((g) => g !== 0))).toBe(true);
    expect(run({ recompute: true })).toEqual(plain);
  });

  it("leaks nothing", () => {
    const before = memory().tensors;
    run({ recompute: true });
    expect(memory().tensors).toBe(before);
  });
});

it("holds less in a step of many blocks, the outputs of inner ones and of routers at hand", async () => {
  const model = new Transformer({
    ...base,
    numLayers: 12,
    dModel: 32,
    ffnDim: 256,
    maxSeqLen: 256,
    experts: { numExperts: 2 },
  });
  const params = model.init(1);
  const tokens = tensor(
    Int32Array.from({ length: 512 }, (_, i) => i % 11),
    { shape: [2, 256] },
  );
  const peakOf = async (recompute: boolean) => {
    await sync();
    resetPeakMemory();
    const before = memory().liveBytes;
    scope(() => {
      const loss = (p: Record<string, Tensor>) => {
        const { hidden, blocks, routers } = model.states(p, tokens, undefined, { recompute, blocks: [5] });
        expect([Object.keys(routers).length, Object.keys(blocks)]).toEqual([12, ["5"]]);
        return hidden.square().mean().add(blocks[5]!.square().mean());
      };
      valueAndGrad(loss, params).value.itemSync();
    });
    return memory().peakBytes - before;
  };
  expect(await peakOf(true)).toBeLessThan((await peakOf(false)) / 2);
  for (const one of [...Object.values(params), tokens]) one.dispose();
  model.dispose();
});
