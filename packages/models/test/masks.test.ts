/** Rows of several documents, prefixes, both directions, foreign vectors: what they let a position see, and what they refuse. */
import { scope, type Tensor, tensor, valueAndGrad } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { type ForwardOptions, KvCache, Transformer, type TransformerConfig } from "../src/index.js";

const base: TransformerConfig = { vocabSize: 13, dModel: 16, numLayers: 2, numHeads: 4, maxSeqLen: 24, initStd: 0.3 };
const ids = (n: number, offset = 0) => Int32Array.from({ length: n }, (_, i) => (i * 7 + offset + ((i * i) % 5)) % 13);
const row = (values: ArrayLike<number>) => tensor(Int32Array.from(values), { shape: [1, values.length] });

function setUp(change: Partial<TransformerConfig> = {}) {
  const model = new Transformer({ ...base, ...change });
  const params = Object.fromEntries(Object.entries(model.init(1)).map(([name, x]) => [name, x.astype("float64")]));
  const logits = (tokens: ArrayLike<number>, options?: ForwardOptions, cache?: KvCache) =>
    scope(() => Array.from(model.logits(params, row(tokens), cache, options).dataSync()));
  return { model, params, logits };
}

function expectClose(actual: readonly number[], expected: readonly number[]): void {
  expect(actual).toHaveLength(expected.length);
  for (const [i, z] of expected.entries()) expect(Math.abs(actual[i]! - z)).toBeLessThan(1e-11 * (1 + Math.abs(z)));
}

const kinds: Record<string, Partial<TransformerConfig>> = {
  "rotary positions": {},
  windows: { attention: [{ kind: "dot", window: 3 }, { kind: "dot" }] },
  "learned positions": { positions: "learned" },
  "scaled rotary positions": { ropeScaling: { type: "yarn", factor: 4, originalLength: 64 } },
};

describe.each(Object.entries(kinds))("documents in a row, with %s", (_name, change) => {
  const { model, params, logits } = setUp(change);
  const learned = change.positions === "learned";
  const [first, second] = [ids(5), ids(7, 3)];
  const packed = [...first, ...second];
  const documents = row([...first.map(() => 4), ...second.map(() => 2)]);
  const positions = learned ? { positions: row([...first.keys(), ...second.keys()]) } : {};

  it("score as each does alone", () => {
    expectClose(logits(packed, { documents, ...positions }), [...logits(first), ...logits(second)]);
  });

  it("have the loss and gradients of all their tokens together", () => {
    const targets = [...first.slice(1), -100, ...second.slice(1), -100];
    const alone = (tokens: Int32Array) => ({ tokens: row(tokens), targets: row([...tokens.slice(1), -100]) });
    const whole = valueAndGrad(
      (p) => model.loss(p, { tokens: row(packed), targets: row(targets), documents, ...positions }),
      params,
    );
    const parts = [first, second].map((tokens) => valueAndGrad((p) => model.loss(p, alone(tokens)), params));
    const shares = [4 / 10, 6 / 10];
    const mixed = (of: (part: (typeof parts)[number]) => ArrayLike<number>) => {
      const [a, b] = parts.map(of) as [ArrayLike<number>, ArrayLike<number>];
      return Array.from(a, (x, i) => shares[0]! * x + shares[1]! * b[i]!);
    };
    expectClose(
      [whole.value.itemSync()],
      mixed((part) => [part.value.itemSync()]),
    );
    for (const name of Object.keys(params)) {
      expectClose(
        Array.from(whole.grads[name]!.dataSync()),
        mixed((part) => part.grads[name]!.dataSync()),
      );
    }
  });
});

describe("a prefix", () => {
  it.each([{}, { attention: [{ kind: "dot" as const, window: 4 }] }])(
    "is seen by all within %o, and later tokens as ever",
    (change) => {
      const { logits } = setUp({ numLayers: 1, ...change });
      const tokens = [...ids(9)];
      const scores = (changed: number) => logits(tokens.with(changed, (tokens[changed]! + 1) % 13), { prefix: 5 });
      const same = logits(tokens, { prefix: 5 });
      const window = change.attention?.[0]?.window ?? 9;
      const differs = (a: number[], t: number) => a.slice(t * 13, (t + 1) * 13).some((z, i) => z !== same[t * 13 + i]);
      for (let key = 0; key < 9; key++) {
        const other = scores(key);
        const seen = Array.from({ length: 9 }, (_, t) => (key <= t || key < 5) && key > t - window);
        expect(Array.from({ length: 9 }, (_, t) => differs(other, t))).toEqual(seen);
      }
    },
  );

  it("is seen as a whole where a cache is filled with it at once", () => {
    const { model, logits } = setUp({ attention: [{ kind: "dot", window: 4 }, { kind: "dot" }] });
    const tokens = [...ids(9)];
    using cache = new KvCache(model.config);
    const parts = [tokens.slice(0, 5), ...tokens.slice(5).map((id) => [id])].flatMap((part) =>
      logits(part, { prefix: 5 }, cache),
    );
    expectClose(parts, logits(tokens, { prefix: 5 }));
  });
});

it("sees both directions without causality", () => {
  const { logits } = setUp();
  const tokens = [...ids(6)];
  const [forwards, backwards] = [logits(tokens, { causal: false }), logits(tokens.with(5, 0), { causal: false })];
  expect(forwards.slice(0, 13)).not.toEqual(backwards.slice(0, 13));
  expect(logits(tokens).slice(0, 13)).toEqual(logits(tokens.with(5, 0)).slice(0, 13));
});

describe("foreign vectors", () => {
  const { model, params, logits } = setUp({ embeddingScale: 2 });
  const tokens = [...ids(6)];
  const foreign = tensor(Uint8Array.of(0, 1, 1, 0, 0, 0), { shape: [1, 6], dtype: "bool" });
  const vectors = (from: readonly number[]) =>
    scope(() =>
      model
        .hidden(params, row(from))
        .mul(0)
        .add(params["model.embed_tokens.weight"]!.slice(0, 0, 6).mul(2).reshape([1, 6, 16])),
    );

  it("stand in the place of their tokens, as they are", () => {
    const values = vectors(tokens);
    // The rows of tokens 1 and 2, scaled by hand, in the places of positions 1 and 2.
    const want = logits(tokens.with(1, 1).with(2, 2));
    expectClose(logits(tokens, { inputEmbeds: { values, foreign } }), want);
    expectClose(logits(tokens.with(1, 0).with(2, 0), { inputEmbeds: { values, foreign } }), want);
  });

  it("have no loss, and a gradient", () => {
    const targets = row([...ids(6, 1)]);
    const batch = (values: Tensor) => ({ tokens: row(tokens), targets, inputEmbeds: { values, foreign } });
    const { count, perToken } = model.lossParts(params, batch(vectors(tokens)));
    expect(count.itemSync()).toBe(4);
    expect([...perToken.dataSync()].map((loss) => loss > 0)).toEqual([true, false, false, true, true, true]);
    const { grads } = valueAndGrad((values: Tensor) => model.loss(params, batch(values)), vectors(tokens));
    const used = Array.from({ length: 6 }, (_, t) => [...grads.slice(1, t, t + 1).dataSync()].some((g) => g !== 0));
    expect(used).toEqual([false, true, true, false, false, false]);
  });
});

it("refuses options that don't go together or with the model", () => {
  const { model, logits } = setUp();
  const tokens = [...ids(4)];
  const documents = row([0, 0, 1, 1]);
  using cache = new KvCache(model.config);
  const cases: [() => unknown, RegExp][] = [
    [() => logits(tokens, { documents: row([0, 0]) }), /documents must be \[B, T\], here \[1, 4\]; received \[1, 2\]/],
    [() => logits(tokens, { documents }, cache), /don't go with a cache/],
    [() => logits(tokens, { causal: false }, cache), /don't go with a cache/],
    [() => logits(tokens, { causal: false, prefix: 2 }), /leaves a prefix nothing to free/],
    [() => logits(tokens, { positions: documents }), /rows of a table that this model/],
    [() => setUp({ positions: "learned" }).logits(tokens, { documents }), /need positions too/],
    [
      () => setUp({ attention: [{ kind: "simplicial" }] }).logits(tokens, { documents }),
      /this model has 2-simplicial ones/,
    ],
    [
      () =>
        logits(tokens, {
          inputEmbeds: {
            values: tensor([[[1]]]),
            foreign: tensor(new Uint8Array(4), { shape: [1, 4], dtype: "bool" }),
          },
        }),
      /inputEmbeds.values must be \[B, T, dModel\], here \[1, 4, 16\]; received \[1, 1, 1\]/,
    ],
  ];
  for (const [call, message] of cases) expect(call).toThrow(message);
  // Nothing was begun: the cache still works.
  expect(logits(tokens, {}, cache)).toHaveLength(4 * 13);
});
