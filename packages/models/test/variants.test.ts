/** Every option of a model against plain loops of its formulas, in float64; and what must hold of all of them. */
import { type RopeScaling, scope, sign, tensor, valueAndGrad } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { KvCache, resolveConfig, Transformer, type TransformerConfig } from "../src/index.js";
import { PlainTransformer } from "./plain-transformer.js";

const V = 13;
const base: TransformerConfig = {
  vocabSize: V,
  dModel: 16,
  numLayers: 3,
  numHeads: 4,
  numKvHeads: 2,
  maxSeqLen: 24,
  ffnDim: 20,
  initStd: 0.3,
};

const scalings: RopeScaling[] = [
  { type: "linear", factor: 4 },
  { type: "ntk", factor: 2 },
  { type: "dynamic", factor: 2, originalLength: 5 },
  // At this length YaRN's ramp would begin below 0 (models.md §15).
  { type: "yarn", factor: 4, originalLength: 64 },
  { type: "yarn", factor: 4, originalLength: 16, betaFast: 4, mscale: 0.7, mscaleAllDim: 0.3 },
  { type: "llama3", factor: 8, originalLength: 16, lowFrequencyFactor: 1, highFrequencyFactor: 4 },
];

const gpt2: Partial<TransformerConfig> = {
  norm: "layer",
  positions: "learned",
  feedForward: "gelu",
  feedForwardBias: true,
  attentionBias: "all",
  numKvHeads: 4,
  tieEmbeddings: true,
};

const gemma2: Partial<TransformerConfig> = {
  block: "sandwich",
  normPlusOne: true,
  feedForward: "geglu",
  embeddingScale: 4,
  attentionScale: 0.3,
  attentionSoftcap: 2,
  finalSoftcap: 3,
  tieEmbeddings: true,
  attention: [{ kind: "dot", window: 3 }, { kind: "dot" }],
};

const variants: Record<string, Partial<TransformerConfig>> = {
  plain: {},
  "one key head": { numKvHeads: 1 },
  "a head size of its own": { headDim: 6 },
  "QK-norm": { qkNorm: true },
  "windows by layer": { attention: [{ kind: "dot", window: 2 }, { kind: "dot" }, { kind: "dot", window: 5 }] },
  "layers without positions": {
    attention: [
      { kind: "dot", window: 3 },
      { kind: "dot", rope: false },
    ],
  },
  "logits that grow with the sequence": {
    qkNorm: true,
    attention: [
      { kind: "dot", rope: false, scaleFrom: 3 },
      { kind: "dot", scaleFrom: 2 },
    ],
  },
  "layers without positions under dynamic scaling": {
    ropeScaling: { type: "dynamic", factor: 2, originalLength: 5 },
    attention: [{ kind: "dot", rope: false, scaleFrom: 4 }, { kind: "dot" }],
  },
  "layer norm": { norm: "layer" },
  "plus-one norms": { normPlusOne: true, qkNorm: true },
  "sandwich blocks": { block: "sandwich" },
  "parallel blocks": { block: "parallel" },
  "post-norm blocks": { block: "post", norm: "layer" },
  "GeGLU with biases": { feedForward: "geglu", feedForwardBias: true },
  GELU: { feedForward: "gelu" },
  "GELU by the error function": { feedForward: "geluErf", feedForwardBias: true },
  "squared ReLU": { feedForward: "relu2", feedForwardBias: true },
  "biases of q, k and v": { attentionBias: "qkv" },
  "partial rotary positions": { rotaryDim: 2 },
  "no rotated channel": { rotaryDim: 0 },
  "interleaved rotary positions": { ropeInterleaved: true },
  "softcaps and scales": { attentionSoftcap: 1.5, finalSoftcap: 2, embeddingScale: 3, attentionScale: 0.7 },
  muP: { mup: { baseWidth: 4 } },
  "GPT-2": gpt2,
  "Gemma 2": gemma2,
  ...Object.fromEntries(scalings.map((ropeScaling, i) => [`${ropeScaling.type} scaling ${i}`, { ropeScaling }])),
};

const ids = (n: number, offset = 0) => Int32Array.from({ length: n }, (_, i) => (i * 7 + offset + ((i * i) % 5)) % V);

/** Norms and biases begin at ones and zeros, which would hide mistakes: these differ from them. */
function parametersOf(model: Transformer) {
  const params = model.init(5);
  const entries = Object.entries(params).map(([name, x]) => {
    const shift = Float64Array.from({ length: x.size }, (_, i) => (x.rank === 1 ? Math.sin(i + name.length) / 3 : 0));
    return [name, x.astype("float64").add(tensor(shift, { shape: x.shape }))] as const;
  });
  return Object.fromEntries(entries);
}

describe.each(Object.entries(variants))("a model with %s", (_name, change) => {
  const model = new Transformer({ ...base, ...change });
  const params = parametersOf(model);
  const T = 11;
  const logitsOf = (tokens: Int32Array) =>
    scope(() => model.logits(params, tensor(tokens, { shape: [1, tokens.length] })).dataSync());
  const whole = logitsOf(ids(T));

  it("scores as the formulas do", () => {
    const plain = new PlainTransformer(resolveConfig({ ...base, ...change }), params).logits([...ids(T)]).flat();
    for (const [i, z] of plain.entries()) expect(Math.abs(whole[i]! - z)).toBeLessThan(1e-11 * (1 + Math.abs(z)));
  });

  // Frequencies that grow with the sequence are other ones at every step: see below.
  if (change.ropeScaling?.type !== "dynamic") {
    it.each([1, 4])("gives the same scores with a cache, in chunks of %i", (chunk) => {
      using cache = new KvCache(model.config);
      const scores: number[] = [];
      for (let t = 0; t < T; t += chunk) {
        const part = ids(T).slice(t, t + chunk);
        scores.push(...scope(() => model.logits(params, tensor(part, { shape: [1, part.length] }), cache).dataSync()));
      }
      for (const [i, z] of scores.entries()) expect(Math.abs(whole[i]! - z)).toBeLessThan(1e-11 * (1 + Math.abs(z)));
    });
  }

  it("scores a position without regard to later tokens", () => {
    // Dynamic frequencies depend on the length, which stays.
    const other = logitsOf(
      ids(T)
        .with(T - 1, 0)
        .with(T - 2, 1),
    );
    expect([...other.slice(0, (T - 2) * V)]).toEqual([...whole.slice(0, (T - 2) * V)]);
  });

  it("has the gradient that central differences have", () => {
    const batch = {
      tokens: tensor(ids(6), { shape: [1, 6] }),
      targets: tensor(ids(6, 1).with(4, -100), { shape: [1, 6] }),
    };
    const { grads } = valueAndGrad((p) => model.loss(p, batch), params);
    const step = 1e-6;
    for (const [name, p] of Object.entries(params)) {
      const values = p.dataSync() as Float64Array;
      const at = ((values.length * 5) % 7) % values.length;
      const shifted = (by: number) =>
        scope(() =>
          model
            .loss({ ...params, [name]: tensor(values.with(at, values[at]! + by), { shape: p.shape }) }, batch)
            .itemSync(),
        );
      const numeric = (shifted(step) - shifted(-step)) / (2 * step);
      // Central differences: truncation step² and rounding eps / step, both about 1e-10 of the loss.
      expect(Math.abs(numeric - grads[name]!.dataSync()[at]!), name).toBeLessThan(2e-8);
    }
  });
});

describe("a model with frequencies that grow with the sequence", () => {
  it("turns the keys of its cache anew: of one layer each step scores as the sequence so far does at once", () => {
    const ropeScaling = { type: "dynamic", factor: 2, originalLength: 5 } as const;
    const model = new Transformer({ ...base, numLayers: 1, ropeScaling });
    const params = parametersOf(model);
    using cache = new KvCache(model.config);
    for (let t = 0; t < 11; t++) {
      const token = tensor(ids(11).slice(t, t + 1), { shape: [1, 1] });
      const step = scope(() => model.logits(params, token, cache).dataSync());
      const sequence = tensor(ids(t + 1), { shape: [1, t + 1] });
      const atOnce = scope(() => model.lastLogits(params, sequence).dataSync());
      for (const [i, z] of atOnce.entries()) expect(Math.abs(step[i]! - z)).toBeLessThan(1e-11 * (1 + Math.abs(z)));
    }
  });
});

describe("learning by heart", () => {
  const presets: Record<string, Partial<TransformerConfig>> = {
    Llama: {},
    Qwen2: { attentionBias: "qkv", tieEmbeddings: true },
    Qwen3: { qkNorm: true },
    Mixtral: { experts: { numExperts: 4, auxCoef: 0.01 } },
    "GPT-2": gpt2,
    "Gemma 2": { ...gemma2, finalSoftcap: 30, attentionSoftcap: 50 },
    PaLM: { block: "parallel", numKvHeads: 1 },
    "the first Transformer": { block: "post", norm: "layer", feedForward: "relu2" },
    "2-simplicial": { attention: [{ kind: "simplicial", w1: 8, w2: 4 }] },
  };
  it.each(Object.entries(presets))("brings the loss of %s down", (_name, change) => {
    const model = new Transformer({ ...base, initStd: 0.1, ...change });
    const batch = {
      tokens: tensor(ids(12), { shape: [1, 12] }),
      targets: tensor(ids(13).slice(1), { shape: [1, 12] }),
    };
    let params = model.init(1);
    const losses: number[] = [];
    for (let step = 0; step < 60; step++) {
      // Steps of the signs of the gradients, ever shorter.
      const rate = 0.01 * (1 - step / 60);
      params = scope(() => {
        const { value, grads } = valueAndGrad((p) => model.loss(p, batch), params);
        losses.push(value.itemSync());
        return Object.fromEntries(
          Object.entries(params).map(([name, p]) => [name, p.sub(sign(grads[name]!).mul(rate))]),
        );
      });
    }
    expect(losses[0]).toBeGreaterThan(1.5);
    expect(losses.at(-1)).toBeLessThan(0.2);
  });
});

describe("attention", () => {
  const tokens = tensor(ids(9), { shape: [1, 9] });
  const scores = (model: Transformer, params: ReturnType<typeof parametersOf>) =>
    Array.from(scope(() => model.logits(params, tokens).dataSync()));

  it("with grouped heads is that with each key and value head repeated", () => {
    const [grouped, full] = [2, 4].map((numKvHeads) => new Transformer({ ...base, numKvHeads })) as [
      Transformer,
      Transformer,
    ];
    const params = parametersOf(grouped);
    const repeated = Object.entries(params).map(([name, x]) => {
      if (!/[kv]_proj/.test(name)) return [name, x] as const;
      const heads = x.reshape([2, 1, 4, 16]).expand([2, 2, 4, 16]).reshape([16, 16]);
      return [name, heads] as const;
    });
    const [want, got] = [scores(grouped, params), scores(full, Object.fromEntries(repeated))];
    for (const [i, z] of want.entries()) expect(Math.abs(got[i]! - z)).toBeLessThan(1e-12 * (1 + Math.abs(z)));
  });

  it("with a window as long as the sequence is that without", () => {
    const windowed = new Transformer({ ...base, attention: [{ kind: "dot", window: 9 }] });
    const free = new Transformer(base);
    const params = parametersOf(free);
    expect(scores(windowed, params)).toEqual(scores(free, params));
  });
});
