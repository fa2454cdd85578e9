import * as jax from "@jax-js/jax";
import { defaultDevice, init, jit, numpy as np, tree, valueAndGrad } from "@jax-js/jax";
import { DTypeError, OptionError } from "@llmeff/native";
import { beforeAll, describe, expect, it } from "vitest";
import { AdamW, Sonew } from "./index.js";
import { jaxOptimizer } from "./jax-js.js";

beforeAll(async () => {
  await init("wasm"); // the call without a device asks for `navigator`, which Node 20 doesn't have
  defaultDevice("wasm");
});

const spread = (n: number, scale: number) => Float32Array.from({ length: n }, (_, i) => scale * Math.sin(1 + 3 * i));
const array = (n: number, scale: number, shape: number[]) => np.array(spread(n, scale)).reshape(shape);

const optimizers = {
  AdamW: (params: Record<string, Float32Array>, shapes: Record<string, readonly number[]>) =>
    new AdamW(params, {
      shapes,
      learningRate: 0.02,
      weightDecay: 0.1,
      groups: [{ params: /bias/, weightDecay: 0 }],
    }),
  Sonew: (params: Record<string, Float32Array>, shapes: Record<string, readonly number[]>) =>
    new Sonew(params, { shapes, learningRate: 0.02, order: "col", eps: 1e-6 }),
};

interface Params {
  layers: { weight: np.Array; bias: np.Array }[];
  head: np.Array;
}

function problem() {
  const params: Params = {
    layers: [{ weight: array(15, 0.5, [3, 5]), bias: array(5, 0.1, [5]) }],
    head: array(10, 0.6, [5, 2]),
  };
  const loss = (p: Params, x: np.Array, y: np.Array) => {
    const hidden = np.tanh(np.matmul(x, p.layers[0]!.weight).add(p.layers[0]!.bias));
    return np.mean(np.square(np.matmul(hidden, p.head).sub(y)));
  };
  const x = array(48, 1, [16, 3]);
  const y = np.matmul(x.ref, array(6, 0.7, [3, 2]));
  return { params, lossAndGradients: jit(valueAndGrad(loss)), x, y };
}

const applyUpdates = (params: Params, updates: Params): Params =>
  tree.map((p: np.Array, u: np.Array) => p.add(u), params as never, updates as never) as Params;

describe("jaxOptimizer", () => {
  it.each(["AdamW", "Sonew"] as const)("fits a model in a loop as optax has it, with %s", async (name) => {
    const { lossAndGradients, x, y, ...given } = problem();
    let { params } = given;
    const optimizer = jaxOptimizer(jax, optimizers[name]);
    let state = optimizer.init(tree.ref(params as never));
    const losses: number[] = [];
    for (let step = 0; step < 60; step++) {
      const [value, grads] = lossAndGradients(tree.ref(params as never) as Params, x.ref, y.ref);
      losses.push(value.item());
      let updates: Params;
      [updates, state] = optimizer.update(grads as Params, state, tree.ref(params as never) as Params);
      params = applyUpdates(params, updates);
    }
    expect(losses.at(-1)).toBeLessThan(0.3 * losses[0]!);
    expect(state.inner.stepCount).toBe(60);
    expect(Object.keys(state.inner.stateDict().tensors)).toEqual(
      expect.arrayContaining(["layers.0.weight.m", "layers.0.bias.m", "head.m"]),
    );
    expect(params.layers[0]!.weight.shape).toEqual([3, 5]);
    state.dispose();
  });

  it.each(["AdamW", "Sonew"] as const)("gives the updates of %s on the arrays themselves", (name) => {
    const direct = { w: spread(12, 0.5) };
    const inner = optimizers[name](direct, { w: [4, 3] });
    const optimizer = jaxOptimizer(jax, optimizers[name]);
    let params = { w: array(12, 0.5, [4, 3]) };
    let state = optimizer.init(tree.ref(params));
    for (let step = 0; step < 5; step++) {
      const gradient = spread(12, 0.3 + step);
      const before = direct.w.slice();
      inner.step({ w: gradient });
      let updates: typeof params;
      [updates, state] = optimizer.update({ w: np.array(gradient).reshape([4, 3]) }, state, tree.ref(params));
      expect([...updates.w.ref.dataSync()]).toEqual([...direct.w.map((x, i) => x - before[i]!)]);
      // p + (q − p) may miss q by a rounding, so the next step begins from there on both sides.
      params = { w: params.w.add(updates.w) };
      direct.w.set(params.w.ref.dataSync() as Float32Array);
    }
  });

  it("takes what it is given, once, and hands out arrays that nobody else has", () => {
    const optimizer = jaxOptimizer(jax, (params) => new AdamW(params, { learningRate: 0.5, weightDecay: 0 }));
    const params = np.array([1, -2]);
    const first = optimizer.init(params.ref);
    expect(params.refCount).toBe(1);
    const grads = np.array([3, -4]);
    const [updates, second] = optimizer.update(grads.ref, first, params.ref);
    expect([params.refCount, grads.refCount, updates.refCount]).toEqual([1, 1, 1]);
    expect([...updates.dataSync()].map((x) => Number(x.toFixed(4)))).toEqual([-0.5, 0.5]);
    expect(() => optimizer.update(grads.ref, first, params.ref)).toThrow(/this state was taken by an update before/);
    expect(() => optimizer.update(grads.ref, { inner: second.inner, dispose() {} }, params.ref)).toThrow(OptionError);
    optimizer.update(grads, second, params);
  });

  it("keeps its state usable by an update that threw", () => {
    const optimizer = jaxOptimizer(
      jax,
      (params, shapes) => new AdamW(params, { shapes, learningRate: 0.5, weightDecay: 0, nonFinite: "throw" }),
    );
    const params = () => ({ a: np.array([1, -2]), b: [np.array([[3, 4]])] });
    const grads = () => ({ a: np.array([1, 1]), b: [np.array([[1, -1]])] });
    const straight = optimizer.update(grads(), optimizer.init(params()), params());
    const state = optimizer.init(params());
    const refused: [() => object, RegExp][] = [
      [() => ({ ...grads(), a: np.array([1, 1, 1]) }), /"a" was \[2\]; received \[3\]/],
      [() => ({ ...grads(), b: [np.array([Number.NaN, 1]).reshape([1, 2])] }), /the norm of the gradients was NaN/],
      [() => ({ ...grads(), c: np.array([1]) }), /"c" wasn't among the parameters/],
      [() => ({ a: np.array([1, 1]) }), /there is no gradient of "b.0"/],
    ];
    for (const [bad, message] of refused) {
      expect(() => optimizer.update(bad() as ReturnType<typeof grads>, state, params())).toThrow(message);
    }
    const [updates, next] = optimizer.update(grads(), state, params());
    expect(updates.a.js()).toEqual(straight[0].a.js());
    expect(updates.b[0]!.js()).toEqual(straight[0].b[0]!.js());
    expect(next.inner.stateDict()).toEqual(straight[1].inner.stateDict());
    expect(() => optimizer.update(grads(), state, params())).toThrow(/this state was taken by an update before/);
    next.dispose();
  });

  it("refuses other dtypes, shapes and names, and to be traced", () => {
    const optimizer = jaxOptimizer(jax, (params) => new AdamW(params));
    const state = optimizer.init({ a: np.ones([2]) });
    expect(() => optimizer.init({ a: np.ones([2], { dtype: np.int32 }) })).toThrow(DTypeError);
    expect(() => optimizer.init({})).toThrow(/nothing to train/);
    const refused = (grads: object, params: object) => () => optimizer.update(grads, state, params);
    expect(refused({ b: np.ones([2]) }, { a: np.ones([2]) })).toThrow(/there is no gradient of "a"/);
    const traced = jit((p: { a: np.Array }) => optimizer.init(p) as never);
    expect(() => traced({ a: np.ones([2]) })).toThrow(/can't be traced. Call it outside of jit/);
    const [updates] = optimizer.update({ a: np.ones([2]) }, state, { a: np.ones([2]) });
    expect(updates.a.shape).toEqual([2]);
  });
});
