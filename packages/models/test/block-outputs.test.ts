/** Outputs of inner blocks: those of a model that ends there, without its last norm. */
import { layerNorm, memory, OptionError, rmsNorm, scope, type Tensor, tensor, valueAndGrad } from "@llmeff/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { Transformer, type TransformerConfig } from "../src/index.js";

const base: TransformerConfig = { vocabSize: 11, dModel: 16, numLayers: 3, numHeads: 4, maxSeqLen: 16, initStd: 0.3 };
const configs: Record<string, TransformerConfig> = {
  pre: base,
  "pre, layer norm": { ...base, norm: "layer" },
  sandwich: { ...base, block: "sandwich" },
  parallel: { ...base, block: "parallel" },
  post: { ...base, block: "post" },
  experts: { ...base, experts: { numExperts: 4, denseLayers: 1 } },
  simplicial: { ...base, attention: [{ kind: "simplicial" }, { kind: "dot" }] },
};

const tokens = () => tensor(Int32Array.of(1, 5, 3, 9, 0, 2, 7, 7), { shape: [2, 4] });
const sumOfSquares = (x: Tensor) => x.square().sum();
const bits = (x: Tensor) => Array.from(x.dataSync());

function lastNorm({ norm = "rms", block }: TransformerConfig, params: Record<string, Tensor>, x: Tensor): Tensor {
  const weight = params["model.norm.weight"]!;
  if (block === "post") return x;
  return norm === "layer"
    ? layerNorm(x, weight, params["model.norm.bias"]!, { eps: 1e-5 })
    : rmsNorm(x, weight, { eps: 1e-5 });
}

describe.each(Object.entries(configs))("blocks of a model: %s", (_name, config) => {
  const model = new Transformer(config);
  const params = model.init(1);
  afterAll(() => model.dispose());

  it("are, normed, the hidden states of the model that ends there", () => {
    scope(() => {
      const { blocks } = model.states(params, tokens(), undefined, { blocks: [0, 1, 2] });
      for (const number of [0, 1, 2]) {
        const shorter = new Transformer({ ...config, numLayers: number + 1 });
        const wanted = bits(shorter.hidden(params, tokens()));
        const normed = bits(lastNorm(config, params, blocks[number]!));
        for (const [i, value] of normed.entries()) expect(value).toBeCloseTo(wanted[i]!, 5);
        shorter.dispose();
      }
    });
  });

  it("change nothing else, and are not there unless asked for", () => {
    scope(() => {
      const plain = model.states(params, tokens());
      const some = model.states(params, tokens(), undefined, { blocks: [1] });
      expect([Object.keys(plain.blocks), Object.keys(some.blocks)]).toEqual([[], ["1"]]);
      expect(bits(some.hidden)).toEqual(bits(plain.hidden));
    });
  });

  it("carry gradients to the parameters before them alone", () => {
    scope(() => {
      const { grads } = valueAndGrad(
        (p: Record<string, Tensor>) => sumOfSquares(model.states(p, tokens(), undefined, { blocks: [1] }).blocks[1]!),
        params,
      );
      const touched = (name: string) => grads[name]!.dataSync().some((g) => g !== 0);
      expect(touched("model.layers.0.self_attn.v_proj.weight")).toBe(true);
      expect(touched("model.layers.1.self_attn.v_proj.weight")).toBe(true);
      expect(touched("model.layers.2.self_attn.v_proj.weight")).toBe(false);
    });
  });

  it("leak nothing", () => {
    const before = memory().tensors;
    scope(() => {
      const { hidden, blocks } = model.states(params, tokens(), undefined, { blocks: [0, 2] });
      hidden.dataSync();
      for (const block of Object.values(blocks)) block.dataSync();
    });
    expect(memory().tensors).toBe(before);
  });
});

it("refuses blocks that the model doesn't have", () => {
  const model = new Transformer(base);
  const params = model.init(1);
  for (const blocks of [[3], [-1], [0.5]]) {
    expect(() => model.states(params, tokens(), undefined, { blocks })).toThrow(OptionError);
    expect(() => model.states(params, tokens(), undefined, { blocks })).toThrow(
      `[Transformer] blocks must be numbers in 0..2; received ${blocks[0]}.`,
    );
  }
  model.dispose();
});
