import { memory, permute, scope, type Tensor, type TensorTree, tensor, tensorsOf } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import {
  AdamW,
  adamw,
  addDecayedWeights,
  applyUpdates,
  chain,
  clip,
  clipByGlobalNorm,
  type GradientTransformation,
  identity,
  masked,
  Sonew,
  scale,
  scaleByAdam,
  scaleByLearningRate,
  scaleBySonew,
  sonew,
  trace,
} from "./index.js";

const f64 = (...values: number[]) => tensor(Float64Array.from(values));
const values = (x: Tensor) => Array.from(x.dataSync());

/** The updates of one step on vectors `grads` and `params`. */
function once(transform: GradientTransformation, grads: Tensor, params = f64(...values(grads))): number[] {
  return values(transform.update(grads, transform.init(params), params).updates);
}

describe("transforms", () => {
  it.each<[string, GradientTransformation, number[]]>([
    ["identity", identity(), [3, -4]],
    ["scale", scale(0.5), [1.5, -2]],
    ["scaleByLearningRate", scaleByLearningRate((step) => 2 + step), [-6, 8]],
    ["clip", clip(3.5), [3, -3.5]],
    ["addDecayedWeights", addDecayedWeights(0.5), [4.5, -6]],
    ["trace", trace({ decay: 0.5 }), [3, -4]],
    ["nesterov", trace({ decay: 0.5, nesterov: true }), [4.5, -6]],
    ["chain", chain(scale(2), clip(7), scale(-1)), [-6, 7]],
  ])("%s of (3, −4)", (_name, transform, expected) => {
    expect(once(transform, f64(3, -4))).toEqual(expected);
  });

  it("trace remembers", () => {
    const transform = trace({ decay: 0.5 });
    const first = transform.update(f64(4), transform.init(f64(0)), f64(0));
    expect(values(transform.update(f64(1), first.state, f64(0)).updates)).toEqual([3]); // 1 + 0.5·4
  });

  it("clipByGlobalNorm takes all leaves together", () => {
    const grads = { a: f64(3), b: [f64(4)] };
    const { updates } = clipByGlobalNorm(1).update(grads, {}, grads);
    expect(updates.a.itemSync()).toBeCloseTo(0.6, 6);
    expect(updates.b[0]!.itemSync()).toBeCloseTo(0.8, 6);
    expect(once(clipByGlobalNorm(6), f64(3, -4))).toEqual([3, -4]);
    expect(once(clipByGlobalNorm(1), f64(Number.POSITIVE_INFINITY, 1))).toEqual([Number.NaN, Number.NaN]);
  });

  it("masked touches only what the mask chooses", () => {
    const params = { layer: { weight: f64(1), bias: f64(1) } };
    const transform = masked(chain(scale(10), addDecayedWeights(1)), (path) => path.endsWith("weight"));
    const { updates } = transform.update(params, transform.init(params), params);
    expect([updates.layer.weight.itemSync(), updates.layer.bias.itemSync()]).toEqual([11, 1]);
  });

  it("scaleByAdam's first step is the sign of the gradient", () => {
    for (const x of once(scaleByAdam(), f64(0.3, 20, 7)).map((u) => u - 1)) expect(Math.abs(x)).toBeLessThan(1e-7);
  });

  it("scaleBySonew of two coordinates by hand", () => {
    // The numbers of Sonew's worked example: u = (1/6, 1/3)
    const [a, b] = once(scaleBySonew({ beta1: 0, beta2: 0, eps: 1, graft: "none" }), f64(1, 2));
    expect(a).toBeCloseTo(1 / 6, 12);
    expect(b).toBeCloseTo(1 / 3, 12);
  });

  it("leak nothing inside a scope and make the same tensors each step", () => {
    const params = [tensor([1, 2, 3])];
    const grads = [tensor([1, -1, 2])];
    const transform = sonew(0.1, { weightDecay: 0.1 });
    let state = transform.init(params);
    const before = memory().tensors;
    for (let i = 0; i < 3; i++) {
      const result = scope(() => transform.update(grads, state, params));
      for (const old of tensorsOf([state, result.updates])) old.dispose();
      state = result.state;
    }
    expect(memory().tensors).toBe(before);
  });

  it("refuse trees that differ and options outside their domain", () => {
    const transform = adamw(0.1);
    expect(() => transform.update({ a: f64(1) }, transform.init({ b: f64(1) }), { a: f64(1) })).toThrow(
      '"a" is a tensor in one',
    );
    expect(() => sonew(0.1, { eps: 0 })).toThrow("[scaleBySonew] eps must be a positive number");
    expect(() => adamw(-1)).toThrow("[constant] value must be a number of at least 0; received -1.");
    expect(() => clipByGlobalNorm(0)).toThrow("[clipByGlobalNorm] maxNorm must be a positive number; received 0.");
  });
});

describe("the two coats", () => {
  const shape = [7, 11];
  const start = Float64Array.from({ length: 77 }, (_, i) => Math.cos(i));
  const gradAt = (step: number) => Float64Array.from({ length: 77 }, (_, i) => Math.sin(i * i + step) * (1 + (i % 3)));
  const hyper = { weightDecay: 0.1, beta1: 0.8, beta2: 0.95 };
  const pairs = [
    ["adamw", adamw(0.02, hyper), (p: Float64Array) => new AdamW({ p }, { ...hyper, learningRate: 0.02 })],
    [
      "sonew",
      sonew(0.02, { ...hyper, eps: 1e-3, gamma: 0.05 }),
      (p: Float64Array) => new Sonew({ p }, { ...hyper, learningRate: 0.02, eps: 1e-3, gamma: 0.05 }),
    ],
    [
      "sonew, band 3, isolate",
      sonew(0.02, { ...hyper, eps: 1e-2, gamma: 0.3, band: 3, drop: "isolate" }),
      (p: Float64Array) =>
        new Sonew({ p }, { ...hyper, learningRate: 0.02, eps: 1e-2, gamma: 0.3, band: 3, drop: "isolate" }),
    ],
    [
      "sonew, band 10",
      sonew(0.02, { ...hyper, eps: 1e-2, band: 10 }),
      (p: Float64Array) => new Sonew({ p }, { ...hyper, learningRate: 0.02, eps: 1e-2, band: 10 }),
    ],
  ] as const;

  it.each(pairs)("%s: transforms and fused kernel agree to rounding over 20 steps", (_name, transform, make) => {
    const fused = start.slice();
    const optimizer = make(fused);
    let params = tensor(start, { shape });
    let state = transform.init(params);
    for (let step = 0; step < 20; step++) {
      optimizer.step({ p: gradAt(step) });
      const result = transform.update(tensor(gradAt(step), { shape }), state, params);
      params = applyUpdates(params, result.updates);
      state = result.state;
    }
    for (const [i, x] of params.dataSync().entries()) expect(Math.abs(x - fused[i]!)).toBeLessThan(1e-12);
  });

  it("round bfloat16 state by the same random numbers", () => {
    const options = { stateDtype: "bfloat16", band: 2, graft: "rmspropNorm", eps: 1, order: "col", seed: 3 } as const;
    const fused = { a: tensor(start, { shape, dtype: "float32" }), b: tensor(start, { shape, dtype: "float32" }) };
    const optimizer = new Sonew(fused, options);
    const transform = scaleBySonew(options);
    let state = transform.init(fused);
    const grads = () => ({
      a: tensor(gradAt(1), { shape, dtype: "float32" }),
      b: tensor(gradAt(2), { shape, dtype: "float32" }),
    });
    optimizer.step(grads());
    state = transform.update(grads(), state, fused).state;
    const tensors = optimizer.stateDict().tensors;
    const transposed = (x: Tensor) => permute(x.reshape([...shape].reverse()), [1, 0]);
    const same = (name: string, x: Tensor, inOrder: boolean) => {
      const other = (inOrder ? tensors[name]! : transposed(tensors[name]!)).clone().dataSync();
      const differing = [...x.dataSync()].filter((value, i) => value !== other[i]);
      // One whose last float32 bit differs may be rounded to the other side.
      expect(differing.length, name).toBeLessThanOrEqual(1);
    };
    for (const name of ["a", "b"] as const) {
      const leaf = (tree: TensorTree) => (tree as Record<string, Tensor>)[name]!;
      same(`${name}.m`, leaf(state.m), false);
      same(`${name}.rms`, leaf(state.rms as TensorTree), false);
      for (const [k, diagonal] of state.diagonals.entries()) same(`${name}.h${k}`, leaf(diagonal), true);
    }
  });
});
