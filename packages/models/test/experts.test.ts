/** What must hold of mixtures of experts (models.md §4, §15). */
import { add, concat, expand, mul, scope, sum, type Tensor, tensor, valueAndGrad } from "@llmeff/tensor";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  expertCapacity,
  generate,
  KvCache,
  type MixtureOfExperts,
  type MixtureOptions,
  mixtureOfExperts,
  nextRouterBias,
  routerBalance,
  routeTokens,
  Transformer,
  type TransformerConfig,
} from "../src/index.js";

/** Numbers in −1..1 that look random and are the same each time. */
function numbers(shape: number[], seed: number): Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  const data = Float64Array.from({ length: size }, (_, i) => Math.sin((i + 1) * 12.9898 + seed * 78.233) * 43758.5453);
  return tensor(
    data.map((x) => 2 * (x - Math.floor(x)) - 1),
    { shape },
  );
}

const C = 6;
const F = 5;
function weightsOf(E: number, seed = 1) {
  return {
    router: numbers([E, C], seed),
    gate: numbers([E, F, C], seed + 1),
    up: numbers([E, F, C], seed + 2),
    down: numbers([E, C, F], seed + 3),
  };
}

const values = (x: Tensor) => Array.from(x.dataSync(), Number);

function expectClose(actual: Tensor, expected: Tensor, tolerance = 1e-12): void {
  const want = values(expected);
  expect(actual.size).toBe(want.length);
  for (const [i, x] of values(actual).entries()) expect(Math.abs(x - want[i]!)).toBeLessThan(tolerance);
}

describe("mixtureOfExperts", () => {
  const routing = fc.record({
    N: fc.integer({ min: 1, max: 9 }),
    E: fc.integer({ min: 1, max: 6 }),
    k: fc.integer({ min: 1, max: 6 }),
    seed: fc.integer({ min: 0, max: 1000 }),
    score: fc.constantFrom("softmax", "sigmoid"),
    normTopK: fc.boolean(),
  });

  it("takes a router of float32 beside rows of bfloat16", () => {
    scope(() => {
      const half = Object.fromEntries(Object.entries(weightsOf(4)).map(([name, w]) => [name, w.astype("bfloat16")]));
      const weights = half as unknown as ReturnType<typeof weightsOf>;
      const x = numbers([7, C], 3).astype("bfloat16");
      const mixed = mixtureOfExperts(x, { ...weights, router: weights.router.astype("float32") });
      const alike = mixtureOfExperts(x, weights);
      expect(mixed.y.dtype).toBe("bfloat16");
      expect(values(mixed.y)).toEqual(values(alike.y));
      expect(mixed.routing.indices.dataSync()).toEqual(alike.routing.indices.dataSync());
    });
  });

  it("gives each kept assignment a place of its own, in choice-major order, and counts the others", () => {
    fc.assert(
      fc.property(routing, fc.integer({ min: 1, max: 9 }), ({ N, E, k, seed, score, normTopK }, capacity) => {
        const topK = Math.min(k, E);
        scope(() => {
          const x = numbers([N, C], seed);
          const result = mixtureOfExperts(x, weightsOf(E, seed), { topK, score, normTopK, capacity });
          const chosen = values(result.routing.indices);
          const filled = new Array<number>(E).fill(0);
          const want = chosen.map(() => 0);
          for (let j = 0; j < topK; j++) {
            for (let n = 0; n < N; n++) want[n * topK + j] = filled[chosen[n * topK + j]!]!++;
          }
          expect(values(result.slots)).toEqual(want);
          expect(values(result.routing.load)).toEqual(filled);
          const kept = want.filter((slot) => slot < capacity).length;
          expect(result.dropped.itemSync()).toBe(N * topK - kept);
        });
      }),
    );
  });

  it("drops nothing with as many places as tokens, to the last bit", () => {
    fc.assert(
      fc.property(routing, ({ N, E, k, seed, score, normTopK }) => {
        scope(() => {
          const options: MixtureOptions = { topK: Math.min(k, E), score, normTopK };
          const x = numbers([N, C], seed);
          const free = mixtureOfExperts(x, weightsOf(E), options);
          const bounded = mixtureOfExperts(x, weightsOf(E), { ...options, capacity: N * options.topK! });
          expect(values(bounded.y)).toEqual(values(free.y));
          expect(free.dropped.itemSync()).toBe(0);
        });
      }),
    );
  });

  it("is the dense layer if all experts are the same, or there is one", () => {
    const one = weightsOf(1);
    const x = numbers([7, C], 9);
    const dense = mixtureOfExperts(x, one, { topK: 1 });
    const alike = { router: numbers([4, C], 3) } as ReturnType<typeof weightsOf>;
    for (const name of ["gate", "up", "down"] as const)
      alike[name] = expand(one[name], [4, ...one[name].shape.slice(1)]);
    expectClose(mixtureOfExperts(x, alike, { topK: 3 }).y, dense.y);
    expect(values(dense.routing.gates)).toEqual(new Array(7).fill(1));
  });

  it("treats tokens one by one as long as none is dropped", () => {
    const x = numbers([8, C], 2);
    const whole = mixtureOfExperts(x, weightsOf(5), { topK: 2 }).y;
    const halves = [x.slice(0, 0, 3), x.slice(0, 3, 8)].map(
      (part) => mixtureOfExperts(part, weightsOf(5), { topK: 2 }).y,
    );
    expectClose(concat(halves), whole);
  });

  it("passes a dropped token by without giving its gate to the others", () => {
    const x = numbers([6, C], 4);
    const options = { topK: 1, normTopK: false, capacity: 1 };
    const { y, slots } = mixtureOfExperts(x, weightsOf(2), options);
    const free = mixtureOfExperts(x, weightsOf(2), { ...options, capacity: 6 }).y;
    for (const [n, slot] of values(slots).entries()) {
      const want = slot === 0 ? values(free.slice(0, n, n + 1)) : new Array(C).fill(0);
      expect(values(y.slice(0, n, n + 1))).toEqual(want);
    }
    expect(values(slots)).toContain(1);
  });

  it.each([0, -1, 1.5, Number.NaN])("refuses %f places", (capacity) => {
    expect(() => mixtureOfExperts(numbers([3, C], 1), weightsOf(2), { capacity })).toThrow(
      /capacity must be a positive integer/,
    );
  });
});

describe("expertCapacity", () => {
  it("rounds up what the numbers say, not their rounding errors, and needs no place twice for a token", () => {
    expect(expertCapacity(40, 2, 8, 1.1)).toBe(11);
    expect(expertCapacity(40, 2, 8, 1.11)).toBe(12);
    expect(expertCapacity(40, 2, 8, 100)).toBe(40);
    expect(expertCapacity(40, 2, 8)).toBe(40);
  });
});

describe("routeTokens", () => {
  it("takes the first of equal experts", () => {
    const { indices } = routeTokens(
      tensor([
        [1, 1, 1, 1],
        [0, 2, 2, 2],
      ]),
      { topK: 2 },
    );
    expect(values(indices)).toEqual([0, 1, 1, 2]);
  });

  it("chooses within the best groups, by the sum of a group's two best biased scores", () => {
    // Two best sigmoids of the groups (0 1 2), (3 4 5), (6 7 8): 0.95 + 0.88, 1.00 + 0.00, 0.60 + 0.60. Expert 3, the best of all, stays out.
    const logits = tensor([[3, 2, -9, 9, -9, -9, 0.4, 0.4, -9]]);
    const options = { score: "sigmoid", topK: 2, groups: { count: 3, kept: 1 } } as const;
    expect(values(routeTokens(logits, options).indices)).toEqual([0, 1]);
    const bias = tensor([0, 0, 0, 0, 0, 0, 1, 1, 0]);
    const biased = routeTokens(logits, options, bias);
    expect(values(biased.indices)).toEqual([6, 7]);
    // The bias chooses; the gates are those of the scores alone, which are equal here.
    expect(values(biased.gates)).toEqual([0.5, 0.5]);
    const wider = { ...options, topK: 3, groups: { count: 3, kept: 2 } };
    expect(values(routeTokens(logits, wider).indices)).toEqual([0, 1, 6]);
  });

  it("has a balancing loss of 1 when balanced, and its gradient with sigmoid scores", () => {
    expect(routeTokens(tensor([[0, 0, 0, 0]]), { topK: 2 }).aux.itemSync()).toBeCloseTo(1, 6);
    const logits = numbers([5, 4], 7).astype("float64");
    const loss = (z: Tensor) => routeTokens(z, { topK: 2, score: "sigmoid" }).aux;
    const { grads } = valueAndGrad(loss, logits);
    const at = logits.dataSync() as Float64Array;
    const slopes = values(grads);
    for (const i of at.keys()) {
      const shifted = (by: number) => scope(() => loss(tensor(at.with(i, at[i]! + by), { shape: [5, 4] })).itemSync());
      expect(Math.abs((shifted(1e-6) - shifted(-1e-6)) / 2e-6 - slopes[i]!)).toBeLessThan(1e-9);
    }
  });
});

describe("routerBalance", () => {
  it("measures load, entropy and experts without tokens", () => {
    expect(routerBalance([2, 2, 2, 2])).toEqual({ maxOverMean: 1, entropy: Math.log(4), dead: 0 });
    expect(routerBalance([8, 0, 0, 0])).toEqual({ maxOverMean: 4, entropy: -0, dead: 3 });
  });
});

const base: TransformerConfig = {
  vocabSize: 11,
  dModel: 8,
  numLayers: 2,
  numHeads: 2,
  maxSeqLen: 16,
  ffnDim: 12,
  initStd: 0.3,
};
const ids = (n: number) => Int32Array.from({ length: n }, (_, i) => (i * 7 + ((i * i) % 5)) % 11);

const mixtures: Record<string, MixtureOfExperts & Pick<TransformerConfig, "feedForward">> = {
  Mixtral: { numExperts: 4, topK: 2, auxCoef: 0.01 },
  Switch: { numExperts: 4, topK: 1, normTopK: false, auxCoef: 0.1, zCoef: 0.01, capacityFactor: 1 },
  "DeepSeek-V3": {
    numExperts: 8,
    topK: 3,
    score: "sigmoid",
    routerBias: true,
    routedScale: 2.5,
    groups: { count: 4, kept: 2 },
    denseLayers: 1,
    sharedDim: 6,
    expertDim: 4,
  },
  "experts that choose": { numExperts: 3, choice: "expert", zCoef: 0.01 },
  "plain experts": { numExperts: 3, feedForward: "gelu" },
};

describe.each(Object.entries(mixtures))("a model with %s", (name, { feedForward = "swiglu", ...experts }) => {
  const model = new Transformer({ ...base, feedForward, experts });
  const params = Object.fromEntries(Object.entries(model.init(2)).map(([key, p]) => [key, p.astype("float64")]));
  const state = Object.fromEntries(
    Object.entries(model.initState()).map(([key, b], i) => [
      key,
      b.astype("float64").add(numbers([b.size], i).mul(0.2)),
    ]),
  );
  const batch = {
    tokens: tensor(Int32Array.from([...ids(7), ...ids(7)]), { shape: [2, 7] }),
    targets: tensor(Int32Array.from([...ids(8).slice(1), ...ids(8).slice(1)]).with(3, -100), { shape: [2, 7] }),
  };
  const loss = (p: Record<string, Tensor>) => model.lossParts(p, batch, { state }).loss;

  it("has the gradient that central differences have", () => {
    const { grads } = valueAndGrad(loss, params);
    const step = 1e-6;
    for (const [key, p] of Object.entries(params)) {
      const data = p.dataSync() as Float64Array;
      const at = ((data.length * 5) % 7) % data.length;
      const shifted = (by: number) =>
        scope(() => loss({ ...params, [key]: tensor(data.with(at, data[at]! + by), { shape: p.shape }) }).itemSync());
      const numeric = (shifted(step) - shifted(-step)) / (2 * step);
      expect(Math.abs(numeric - grads[key]!.dataSync()[at]!), key).toBeLessThan(2e-8);
    }
  });

  it("adds its balancing losses to the cross-entropy", () => {
    const { loss, ce, routers } = model.lossParts(params, batch, { state });
    const { auxCoef = 0, zCoef = 0 } = experts;
    const extra = Object.values(routers).map(
      ({ aux, zLoss }) => auxCoef * (aux?.itemSync() ?? 0) + zCoef * zLoss.itemSync(),
    );
    expect(loss.itemSync()).toBeCloseTo(ce.itemSync() + extra.reduce((a, b) => a + b, 0), 12);
    expect(Object.keys(routers)).toHaveLength(2 - (experts.denseLayers ?? 0));
  });

  if (experts.choice !== "expert") {
    it("gives the same scores token by token, dropping nothing", () => {
      const tokens = tensor(ids(9), { shape: [1, 9] });
      const { capacityFactor: _, ...free } = experts;
      const dropless = new Transformer({ ...base, feedForward, experts: free });
      const whole = values(dropless.logits(params, tokens, undefined, { state }));
      using cache = new KvCache(model.config);
      const parts = [ids(9).subarray(0, 5), ...[...ids(9).subarray(5)].map((id) => Int32Array.of(id))].flatMap((some) =>
        values(model.logits(params, tensor(some, { shape: [1, some.length] }), cache, { state })),
      );
      for (const [i, z] of parts.entries())
        expect(Math.abs(z - whole[i]!), `${name} ${i}`).toBeLessThan(1e-11 * (1 + Math.abs(z)));
    });
  }
});

describe("a model with experts", () => {
  const biased = new Transformer({ ...base, experts: { numExperts: 4, routerBias: true } });
  const batch = { tokens: tensor(ids(7), { shape: [1, 7] }), targets: tensor(ids(8).slice(1), { shape: [1, 7] }) };

  it("moves the bias of a router against its load", () => {
    const state = biased.initState();
    const params = biased.init(1);
    const { routers } = biased.lossParts(params, batch, { state });
    const next = biased.nextState(state, routers, 0.5);
    for (const [layer, { load }] of Object.entries(routers)) {
      const mean = 14 / 4;
      const want = values(load).map((n) => 0.5 * Math.sign(mean - n));
      expect(values(next[`${layer}.mlp.router.bias`]!)).toEqual(want);
    }
    expect(Object.keys(next)).toEqual(Object.keys(state));
    expectClose(nextRouterBias(tensor([0, 0]), tensor(Int32Array.of(3, 1))), tensor([-1e-3, 1e-3]), 1e-9);
  });

  it("generates with its state", async () => {
    const state = Object.fromEntries(
      Object.entries(biased.initState()).map(([name, b]) => [name, b.add(tensor([0, 9, 9, 0]))]),
    );
    const params = biased.init(1);
    const drawn: number[] = [];
    for await (const id of generate(biased, params, [1, 2], { maxTokens: 3, temperature: 0, state })) drawn.push(id);
    const sequence = [1, 2];
    for (const id of drawn) {
      const scores = values(
        biased.lastLogits(params, tensor(Int32Array.from(sequence), { shape: [1, sequence.length] }), undefined, {
          state,
        }),
      );
      expect(id).toBe(scores.indexOf(Math.max(...scores)));
      sequence.push(id);
    }
    expect(drawn).toHaveLength(3);
  });

  it("needs its state, and no cache with experts that look ahead", () => {
    expect(() => biased.loss(biased.init(1), batch)).toThrow(/routerBias need their state/);
    const ahead = new Transformer({ ...base, experts: { numExperts: 2, choice: "expert" } });
    using cache = new KvCache(ahead.config);
    expect(() => ahead.logits(ahead.init(1), batch.tokens, cache)).toThrow(/experts that choose tokens look ahead/);
  });

  it("jitters the router's input only where it is given a key", () => {
    const model = new Transformer({ ...base, experts: { numExperts: 4, topK: 1, normTopK: false, jitter: 0.5 } });
    const params = model.init(1);
    const at = (seed?: number) => {
      const options = seed === undefined ? {} : { jitterKey: (stream: number) => ({ seed, stream }) };
      return values(model.lossParts(params, batch, options).perToken);
    };
    expect(at()).toEqual(at());
    expect(at(1)).toEqual(at(1));
    expect(at(1)).not.toEqual(at());
    expect(at(1)).not.toEqual(at(2));
  });

  it("computes on parameters of bfloat16, with routers in float32", () => {
    const model = new Transformer({ ...base, experts: { numExperts: 4, sharedDim: 4 } });
    const half = model.init(1, { dtype: "bfloat16" });
    const { value, grads } = valueAndGrad((p) => model.loss(p, batch), half);
    const same = Object.fromEntries(Object.entries(half).map(([name, p]) => [name, p.astype("float32")]));
    expect(Math.abs(value.itemSync() - model.loss(same, batch).itemSync())).toBeLessThan(20 * 2 ** -9);
    expect(new Set(Object.values(grads).map(({ dtype }) => dtype))).toEqual(new Set(["bfloat16"]));
  });

  it("learns a sequence by heart", () => {
    const model = new Transformer({ ...base, initStd: 0.2, experts: { numExperts: 4, auxCoef: 0.01 } });
    let params = model.init(1);
    let last = Number.POSITIVE_INFINITY;
    for (let step = 0; step < 150; step++) {
      params = scope(() => {
        const { value, grads } = valueAndGrad((p) => model.loss(p, batch), params);
        last = value.itemSync();
        return Object.fromEntries(Object.entries(params).map(([name, p]) => [name, add(p, mul(grads[name]!, -0.5))]));
      });
    }
    // The balancing losses of the two layers alone are 0.02.
    expect(last).toBeLessThan(0.1);
  });

  it.each([
    [{ numExperts: 0 }, /experts\.numExperts must be a positive integer; received 0/],
    [{ numExperts: 2, topK: 3 }, /experts\.topK must be at most numExperts \(2\); received 3/],
    [{ numExperts: 4, capacityFactor: 0 }, /experts\.capacityFactor must be a positive number; received 0/],
    [
      { numExperts: 4, groups: { count: 3, kept: 1 } },
      /groups\.count must be a divisor of numExperts \(4\); received 3/,
    ],
    [{ numExperts: 4, groups: { count: 2, kept: 3 } }, /groups\.kept must be at most count \(2\); received 3/],
    [{ numExperts: 4, topK: 3, groups: { count: 2, kept: 1 } }, /topK must be at most 2, the experts of 1 of 2 groups/],
    [
      { numExperts: 4, choice: "expert", routerBias: true },
      /experts\.routerBias must be left out with choice: "expert"/,
    ],
    [{ numExperts: 4, topk: 1 }, /unknown key "topk"\. Is topK meant\?/],
    [{ numExperts: 4, score: "tanh" }, /experts\.score must be "softmax" or "sigmoid"; received "tanh"/],
  ] as [MixtureOfExperts, RegExp][])("refuses %o", (experts, message) => {
    expect(() => new Transformer({ ...base, experts })).toThrow(message);
  });
});

it("sums what the experts of a token made of it", () => {
  const x = numbers([1, C], 3);
  const weights = weightsOf(3);
  const { y, routing } = mixtureOfExperts(x, weights, { topK: 3 });
  const alone = [0, 1, 2].map((e) => {
    const only = Object.fromEntries(Object.entries(weights).map(([name, w]) => [name, w.slice(0, e, e + 1)]));
    return mixtureOfExperts(x, only as typeof weights, { topK: 1 }).y;
  });
  const [indices, gates] = [values(routing.indices), values(routing.gates)];
  const want = indices.map((e, j) => mul(alone[e]!, gates[j]!)).reduce((a, b) => add(a, b));
  expectClose(y, want);
  expect(sum(routing.gates).itemSync()).toBeCloseTo(1, 6);
});
