/** Blocks of which the backward pass has their inputs only, or little more. */
import {
  memory,
  OptionError,
  profile,
  resetPeakMemory,
  scope,
  sync,
  type Tensor,
  tensor,
  valueAndGrad,
} from "@llmeff/tensor";
import { afterAll, describe, expect, it } from "vitest";
import {
  type LossOptions,
  type RecomputeChoice,
  recomputeChoices,
  Transformer,
  type TransformerConfig,
} from "../src/index.js";

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
  "normed heads, biases, gelu": {
    ...base,
    qkNorm: true,
    attentionBias: "all",
    feedForward: "gelu",
    feedForwardBias: true,
  },
  "many rows, whose products are one": { ...base, maxSeqLen: 512, numKvHeads: 2 },
};

const batch = (times: number) => {
  const repeated = (row: readonly number[]) =>
    tensor(Int32Array.from(Array.from({ length: times }, () => row).flat()), { shape: [2, 4 * times] });
  return { tokens: repeated([1, 5, 3, 9, 0, 2, 7, 7]), targets: repeated([5, 3, -100, 0, 2, 7, 7, 1]) };
};
const bits = (x: Tensor) => Array.from(x.dataSync());

describe.each(Object.entries(configs))("recompute: %s", (_name, config) => {
  const model = new Transformer(config);
  const params = model.init(1);
  const narrow = model.init(1, { dtype: "float16" });
  const state = model.initState();
  afterAll(() => model.dispose());

  const run = (options: LossOptions, of = params) =>
    scope(() => {
      const given = { state, jitterKey: (layer: number) => ({ seed: 1, stream: layer }), ...options };
      const { value, grads } = valueAndGrad(
        (p: Record<string, Tensor>) => model.lossParts(p, batch(config.maxSeqLen / 16), given).loss,
        of,
      );
      return {
        loss: value.itemSync(),
        grads: Object.entries(grads).map(([name, grad]) => [name, bits(grad)] as const),
      };
    });

  it.each([true, ...recomputeChoices])("has the same loss and gradients, bit for bit: %s", (recompute) => {
    const plain = run({});
    expect(plain.grads.some(([, grad]) => grad.some((g) => g !== 0))).toBe(true);
    expect(run({ recompute })).toEqual(plain);
  });

  it.each(recomputeChoices)("has the same bits in float16: %s", (recompute) => {
    const plain = run({}, narrow);
    const values = plain.grads.flatMap(([, grad]) => grad);
    expect(values.every(Number.isFinite) && values.some((g) => g !== 0)).toBe(true);
    expect(run({ recompute }, narrow)).toEqual(plain);
  });

  it.each(recomputeChoices)("leaks nothing: %s", (recompute) => {
    const before = memory().tensors;
    run({ recompute });
    expect(memory().tensors).toBe(before);
  });
});

const wide = { ...base, dModel: 32, numLayers: 12, ffnDim: 128, maxSeqLen: 256 };
const row = () =>
  tensor(
    Int32Array.from({ length: 512 }, (_, i) => i % 11),
    { shape: [2, 256] },
  );

/** Bytes of a step at the most, beside parameters and tokens. */
async function peakOf(step: () => void): Promise<number> {
  await sync();
  resetPeakMemory();
  const before = memory().liveBytes;
  scope(step);
  await sync();
  return memory().peakBytes - before;
}

it("holds less in a step of many blocks, the outputs of inner ones and of routers at hand", async () => {
  const model = new Transformer({ ...wide, ffnDim: 256, experts: { numExperts: 2 } });
  const params = model.init(1);
  const tokens = row();
  const peak = (recompute: boolean) =>
    peakOf(() => {
      const loss = (p: Record<string, Tensor>) => {
        const { hidden, blocks, routers } = model.states(p, tokens, undefined, { recompute, blocks: [5] });
        expect([Object.keys(routers).length, Object.keys(blocks)]).toEqual([12, ["5"]]);
        return hidden.square().mean().add(blocks[5]!.square().mean());
      };
      valueAndGrad(loss, params).value.itemSync();
    });
  expect(await peak(true)).toBeLessThan((await peak(false)) / 2);
  for (const one of [...Object.values(params), tokens]) one.dispose();
  model.dispose();
});

it("holds the activations that each choice says, and runs what it doesn't hold again", async () => {
  const model = new Transformer(wide);
  const params = model.init(1);
  const tokens = row();
  const streams = 12 * 4 * tokens.size * wide.dModel; // bytes of the inputs of all blocks
  const measured = async (recompute: boolean | RecomputeChoice) => {
    const loss = (p: Record<string, Tensor>) => model.hidden(p, tokens, undefined, { recompute }).square().mean();
    const step = () => scope(() => valueAndGrad(loss, params).value.itemSync());
    const { ops } = profile(step);
    const calls = (name: string) => ops.find(({ op }) => op === name)?.calls ?? 0;
    const bytes = await peakOf(step);
    return { streams: bytes / streams, attentions: calls("attention"), products: calls("matmulTransposed") };
  };
  const [none, activations, selective, block] = [
    await measured(false),
    await measured("activations"),
    await measured("selective"),
    await measured("block"),
  ];
  // Four products a block; of them the wide one of the feed-forward part runs again, or all.
  expect([none, activations, selective, block].map(({ attentions }) => attentions)).toEqual([12, 12, 12, 24]);
  expect([none, activations, selective, block].map(({ products }) => products)).toEqual([48, 48, 60, 96]);
  // In widths of the model: a block holds its input, normed rows twice, queries, keys and values (turned ones too), attention's result, its
  // projection and the sum with it, gate and up 8, their product 4. Without norms, turned rows and product: 14. Without gate and up: 6. The input: 1.
  // Beside that: one block computed again, gradients of a step.
  expect(none.streams).toBeGreaterThan(20);
  expect(activations.streams).toBeGreaterThan(14);
  expect(activations.streams).toBeLessThan(14 + 4);
  expect(selective.streams).toBeGreaterThan(6);
  expect(selective.streams).toBeLessThan(6 + 4.5);
  expect(block.streams).toBeLessThan(1 + 4.5);
  for (const one of [...Object.values(params), tokens]) one.dispose();
  model.dispose();
});

it("refuses what is no choice before anything is computed", () => {
  const model = new Transformer(base);
  const params = model.init(1);
  const tokens = batch(1).tokens;
  const hidden = (recompute: unknown) => () => model.hidden(params, tokens, undefined, { recompute } as LossOptions);
  expect(hidden("all")).toThrow(OptionError);
  expect(hidden("all")).toThrow(
    'recompute must be true, false or one of block, selective, activations; received "all"',
  );
  expect(hidden(2)).toThrow("received 2");
});
