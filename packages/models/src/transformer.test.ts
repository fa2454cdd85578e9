import { memory, scope, tensor, valueAndGrad } from "@llmeff/tensor";
import { afterAll, describe, expect, it } from "vitest";
import type { LayerAttention } from "./attention-config.js";
import { KvCache } from "./cache.js";
import type { TransformerConfig } from "./config.js";
import { parameterSpecs } from "./parameters.js";
import { Transformer } from "./transformer.js";

const base: TransformerConfig = {
  vocabSize: 11,
  dModel: 16,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
  maxSeqLen: 32,
  ffnDim: 24,
  initStd: 0.3,
};

const ids = (n: number, offset = 0) => Int32Array.from({ length: n }, (_, i) => (i * 7 + offset + ((i * i) % 5)) % 11);

const attentions: Record<string, LayerAttention[]> = {
  dot: [{ kind: "dot" }],
  "dot, window": [{ kind: "dot", window: 5 }],
  simplicial: [{ kind: "simplicial" }],
  "simplicial, windows": [{ kind: "simplicial", w1: 6, w2: 3, v2Bias: 1 }],
  "simplicial, w1 < w2, determinant": [{ kind: "simplicial", w1: 2, w2: 5, form: "determinant" }],
  "simplicial, rope": [{ kind: "simplicial", w1: 4, w2: 4, rope: true }],
  mixed: [
    { kind: "dot", window: 4 },
    { kind: "simplicial", w1: 6, w2: 2 },
  ],
};

const models: Record<string, Transformer> = {
  ...Object.fromEntries(
    Object.entries(attentions).map(([name, attention]) => [
      `${name} attention`,
      new Transformer({ ...base, attention }),
    ]),
  ),
  "learned positions": new Transformer({ ...base, positions: "learned", attention: attentions.mixed! }),
};

describe.each(Object.entries(models))("Transformer with %s", (_name, model) => {
  const params = model.init(3);
  afterAll(() => model.dispose());

  it("has parameters of the names, shapes and number that it states", () => {
    const specs = parameterSpecs(model.config);
    expect(Object.keys(params)).toEqual(specs.map(({ name }) => name));
    for (const { name, shape } of specs) expect(params[name]!.shape, name).toEqual(shape);
    expect(Object.values(params).reduce((n, p) => n + p.size, 0)).toBe(model.parameterCount);
  });

  it("gives the same scores token by token, in chunks, and at once", () => {
    const T = 20;
    const whole = scope(() => model.logits(params, tensor(ids(T), { shape: [1, T] }))).dataSync();
    for (const chunk of [1, 3, 7, 20]) {
      using cache = new KvCache(model.config);
      const parts: number[] = [];
      for (let t = 0; t < T; t += chunk) {
        const part = ids(T).slice(t, t + chunk);
        parts.push(...scope(() => model.logits(params, tensor(part, { shape: [1, part.length] }), cache).dataSync()));
      }
      const difference = Math.max(...parts.map((x, i) => Math.abs(x - whole[i]!)));
      const largest = Math.max(...whole.map(Math.abs));
      expect(difference, `chunks of ${chunk}`).toBeLessThan(1e-5 * (1 + largest));
    }
  });

  it("scores a position without regard to later tokens", () => {
    const [a, b] = [ids(9), ids(9).with(8, 0).with(7, 1)];
    const scores = (tokens: Int32Array) =>
      scope(() =>
        model
          .logits(params, tensor(tokens, { shape: [1, 9] }))
          .slice(1, 0, 7)
          .dataSync(),
      );
    expect([...scores(a)]).toEqual([...scores(b)]);
  });

  it("treats the sequences of a batch one by one", () => {
    const two = Int32Array.from([...ids(8), ...ids(8, 4)]);
    const both = scope(() => model.logits(params, tensor(two, { shape: [2, 8] })).dataSync());
    const second = scope(() => model.logits(params, tensor(ids(8, 4), { shape: [1, 8] })).dataSync());
    const largest = Math.max(...second.map(Math.abs));
    expect(Math.max(...second.map((x, i) => Math.abs(x - both[8 * 11 + i]!)))).toBeLessThan(1e-5 * (1 + largest));
  });

  it("has the gradient that central differences have, in float64", () => {
    const T = 7;
    const wide = Object.fromEntries(Object.entries(params).map(([name, p]) => [name, p.astype("float64")]));
    const batch = {
      tokens: tensor(Int32Array.from([...ids(T), ...ids(T, 2)]), { shape: [2, T] }),
      targets: tensor(Int32Array.from([...ids(T, 1), ...ids(T, 3)]).with(4, -100), { shape: [2, T] }),
    };
    const { grads } = valueAndGrad((p) => model.loss(p, batch), wide);
    const loss = () => scope(() => model.loss(wide, batch).itemSync());
    const step = 1e-6;
    for (const [name, p] of Object.entries(wide)) {
      const values = p.dataSync() as Float64Array;
      const at = ((values.length * 5) % 7) % values.length;
      const shifted = (by: number) => {
        const changed = values.slice();
        changed[at] = changed[at]! + by;
        wide[name] = tensor(changed, { shape: p.shape });
        const value = loss();
        wide[name].dispose();
        return value;
      };
      const numeric = (shifted(step) - shifted(-step)) / (2 * step);
      wide[name] = p;
      // Central differences: truncation step² and rounding eps / step, both about 1e-10 of the loss.
      expect(Math.abs(numeric - grads[name]!.dataSync()[at]!), name).toBeLessThan(2e-8);
    }
  });

  it("leaks nothing in a step", () => {
    const batch = { tokens: tensor(ids(8), { shape: [1, 8] }), targets: tensor(ids(8, 1), { shape: [1, 8] }) };
    const step = () =>
      scope(() => {
        valueAndGrad((p) => model.loss(p, batch), params);
      });
    step();
    const before = memory();
    for (let i = 0; i < 5; i++) step();
    expect(memory()).toEqual({ ...before, peakBytes: expect.any(Number) });
  });
});

describe("Transformer", () => {
  it("ties the output to the embedding when asked", () => {
    const tied = new Transformer({ ...base, tieEmbeddings: true });
    expect(tied.parameterCount).toBe(new Transformer(base).parameterCount - 11 * 16);
    expect(tied.init(0)["lm_head.weight"]).toBeUndefined();
  });

  it("gives the parts of the loss: their mean is the loss", () => {
    const model = new Transformer({ ...base, finalSoftcap: 3 });
    const params = model.init(0);
    const batch = {
      tokens: tensor(ids(6), { shape: [1, 6] }),
      targets: tensor(ids(6, 1).with(2, -100), { shape: [1, 6] }),
    };
    const { loss, perToken, count } = model.lossParts(params, batch);
    const each = Array.from(perToken.dataSync());
    expect(count.itemSync()).toBe(5);
    expect(each[2]).toBe(0);
    expect(each.reduce((a, b) => a + b, 0) / 5).toBeCloseTo(loss.itemSync(), 5);
    // The softcap of the loss is that of the logits.
    const logits = Array.from(model.logits(params, batch.tokens).dataSync());
    const row = logits.slice(0, 11);
    const lse = Math.log(row.reduce((a, z) => a + Math.exp(z), 0));
    expect(lse - row[ids(6, 1)[0]!]!).toBeCloseTo(each[0]!, 5);
  });

  it("refuses a cache that a failed pass has left with rows in some layers only", () => {
    const model = new Transformer(base);
    const params = model.init(0);
    const tokens = tensor(ids(3), { shape: [1, 3] });
    using cache = new KvCache(model.config);
    scope(() => void model.logits(params, tokens, cache));
    const { "model.layers.1.self_attn.o_proj.weight": _, ...incomplete } = params;
    expect(() => scope(() => void model.logits(incomplete, tokens, cache))).toThrow(/lack "model\.layers\.1/);
    expect(cache.length).toBe(3);
    expect(() => scope(() => void model.logits(params, tokens, cache))).toThrow(
      /failed after 3 positions.*truncate\(3\)/,
    );
    cache.truncate(3);
    const mended = scope(() => model.logits(params, tokens, cache).dataSync());
    using fresh = new KvCache(model.config);
    scope(() => void model.logits(params, tokens, fresh));
    expect([...mended]).toEqual([...scope(() => model.logits(params, tokens, fresh).dataSync())]);
  });

  it("goes on with a cache after a call that was refused before it began", () => {
    const model = new Transformer(base);
    const params = model.init(0);
    using cache = new KvCache(model.config);
    const call = (n: number) =>
      scope(() => model.logits(params, tensor(ids(n), { shape: [1, n] }), cache).dataSync().length);
    call(30);
    expect(() => call(3)).toThrow(/exceed maxSeqLen 32/);
    expect(call(2)).toBe(2 * 11);
  });

  it.each(["bfloat16", "float16"] as const)("computes on parameters of %s", (dtype) => {
    const model = new Transformer({ ...base, attention: attentions.mixed! });
    const half = Object.fromEntries(Object.entries(model.init(0)).map(([name, p]) => [name, p.astype(dtype)]));
    const tokens = tensor(ids(9), { shape: [1, 9] });
    const batch = { tokens, targets: tensor(ids(9, 1), { shape: [1, 9] }) };
    const { value, grads } = valueAndGrad((p) => model.loss(p, batch), half);
    const same = Object.fromEntries(Object.entries(half).map(([name, p]) => [name, p.astype("float32")]));
    const expected = model.loss(same, batch).itemSync();
    expect(value.dtype).toBe("float32");
    expect(Object.values(grads).every((g) => g.dtype === dtype)).toBe(true);
    // Each of some twenty layers in a row rounds by half a unit in the last place, relative to numbers of about 1.
    const roundoff = dtype === "bfloat16" ? 2 ** -9 : 2 ** -12;
    expect(Math.abs(value.itemSync() - expected)).toBeLessThan(20 * roundoff);
    model.dispose();
  });

  it("names what is wrong with tokens and parameters", () => {
    const model = new Transformer(base);
    const params = model.init(0);
    expect(() => model.logits(params, tensor(ids(3)))).toThrow(/tokens must be \[B, T\]; received \[3\]/);
    expect(() => model.logits(params, tensor(ids(33), { shape: [1, 33] }))).toThrow(
      /positions 0\.\.32 exceed maxSeqLen 32/,
    );
    const { "model.norm.weight": _, ...incomplete } = params;
    expect(() => model.logits(incomplete, tensor(ids(3), { shape: [1, 3] }))).toThrow(/lack "model.norm.weight"/);
  });

  it.each([
    [{ numHeads: 3 }, /headDim must be a positive even integer/],
    [{ numKvHeads: 3 }, /numHeads must be a multiple of numKvHeads; received 4 and 3/],
    [{ vocabSize: 0 }, /vocabSize must be a positive integer; received 0/],
    [{ attention: [] }, /at least one layer/],
    [{ attention: [{ kind: "dot", window: 0 }] }, /attention\[0\]\.window must be a positive integer; received 0/],
    [{ attention: [{ kind: "simplicial", w1: -4 }] }, /attention\[0\]\.w1 must be a positive integer; received -4/],
    [
      { attention: [{ kind: "simplicial", numKvHeads: 3 }] },
      /attention\[0\]\.numKvHeads must be a divisor of numHeads/,
    ],
    [{ attention: [{ kind: "other" }] }, /kind must be "dot" or "simplicial"; received "other"/],
    [{ positions: "none" }, /positions must be "rotary" or "learned"; received "none"/],
    [{ numKVHeads: 1 }, /the configuration has an unknown key "numKVHeads"\. Is numKvHeads meant\?/],
    [{ layers: 3 }, /unknown key "layers"\. Known are vocabSize, dModel, numLayers,/],
    [{ attention: [null] }, /attention\[0\] must be an object; received null/],
    [{ attention: ["dot"] }, /attention\[0\] must be an object; received "dot"/],
    [{ attention: [{}] }, /attention\[0\]\.kind must be .*; received undefined/],
    [{ attention: [{ kind: "dot" }, { kind: "simplicial", form: "det" }] }, /attention\[1\]\.form must be "trilinear"/],
    [{ attention: [{ kind: "simplicial", k2Bias: Number.NaN }] }, /attention\[0\]\.k2Bias must be .*received NaN/],
    [{ attention: [{ kind: "simplicial", v2Bias: "1" }] }, /v2Bias must be a finite number; received "1"/],
    [
      { attention: [{ kind: "simplicial", window: 4 }] },
      /attention\[0\] has an unknown key "window"\. Known are kind, numKvHeads, w1/,
    ],
    [{ attention: [{ kind: "dot", w1: 4 }] }, /attention\[0\] has an unknown key "w1"\. Known are kind, window/],
    [{ attention: [{ kind: "simplicial", rope: 1 }] }, /rope must be true or false; received 1/],
    [{ attention: [{ kind: "simplicial", rope: true, form: "determinant" }] }, /rope: true with form: "determinant"/],
    [{ positions: "learned", attention: [{ kind: "simplicial", rope: true }] }, /rope: true in a model with positions/],
    [{ attention: [{ kind: "dot", rope: "no" }] }, /attention\[0\]\.rope must be true or false; received "no"/],
    [{ positions: "learned", attention: [{ kind: "dot", rope: true }] }, /rope: true in a model with positions/],
    [{ attention: [{ kind: "dot", scaleFrom: 1 }] }, /attention\[0\]\.scaleFrom must be an integer of at least 2/],
    [{ attention: [{ kind: "dot", scaleFrom: 2.5 }] }, /scaleFrom must be an integer of at least 2; received 2\.5/],
    [{ attention: [{ kind: "dot", window: 4, scaleFrom: 8 }] }, /scaleFrom must be left out in a layer with a window/],
    // Patterns are checked as a whole, also the part that no layer uses.
    [{ numLayers: 1, attention: [{ kind: "dot" }, { kind: "dot", window: 0 }] }, /attention\[1\]\.window/],
    [{ tieEmbeddings: "yes" }, /tieEmbeddings must be true or false; received "yes"/],
    [{ ropeBase: Number.POSITIVE_INFINITY }, /ropeBase must be a positive number; received Infinity/],
    [{ normEps: Number.NaN }, /normEps must be a finite number/],
  ] as unknown as [Partial<TransformerConfig>, RegExp][])("refuses %o", (change, message) => {
    expect(() => new Transformer({ ...base, ...change })).toThrow(message);
  });
});
