import { memory, type Tensor, tensor, zerosLike } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import {
  AdamW,
  addDecayedWeights,
  applyUpdates,
  type CommonHyper,
  chain,
  clipByGlobalNorm,
  type GradientTransformation,
  optimizerOf,
  type Parameter,
  scale,
  scaleByAdam,
  scaleByLearningRate,
  scaleBySonew,
  TransformOptimizer,
  type TransformOptions,
  type TransformRule,
  trace,
  warmup,
} from "./index.js";
import { mapTrees } from "./trees.js";

interface AdamHyper extends CommonHyper {
  beta1: number;
  beta2: number;
}

const adamRule: TransformRule<AdamHyper> = {
  kind: "adam-by-transform",
  defaults: { learningRate: 1e-3, weightDecay: 0.01, beta1: 0.9, beta2: 0.999 },
  transform: ({ learningRate, weightDecay, beta1, beta2 }) =>
    chain(scaleByAdam({ beta1, beta2 }), addDecayedWeights(weightDecay), scale(-learningRate)),
};

class Adam<P extends Parameter> extends TransformOptimizer<P, AdamHyper> {
  constructor(params: Readonly<Record<string, P>>, options: TransformOptions<AdamHyper> = {}) {
    super(adamRule, params, options);
  }
}

type Params = Record<string, Float32Array>;
const start = (): Params => ({ weight: Float32Array.of(1, 2, 3, 4, 5, 6), bias: Float32Array.of(1, -1) });
const shapes = { weight: [2, 3] };
const gradsAt = (step: number): Params =>
  Object.fromEntries(
    Object.entries(start()).map(([name, x]) => [name, x.map((y, i) => Math.sin(y + 3 * i + 7 * step))]),
  );
/** On the CPU, where typed arrays are stepped, too. */
const toTensors = (p: Params, dtype: "float32" | "bfloat16" = "float32"): Record<string, Tensor> =>
  Object.fromEntries(
    Object.entries(p).map(([name, x]) => [
      name,
      tensor(x, { shape: name === "weight" ? [2, 3] : [x.length], device: "cpu" }).astype(dtype),
    ]),
  );

describe("TransformOptimizer", () => {
  it("steps as the transform alone does", () => {
    const params = toTensors(start());
    const optimizer = new Adam(params, { learningRate: 0.1, weightDecay: 0.5 });
    const transform = adamRule.transform({ learningRate: 0.1, weightDecay: 0.5, beta1: 0.9, beta2: 0.999 });
    let expected = toTensors(start());
    let state = transform.init(expected);
    for (let step = 0; step < 5; step++) {
      optimizer.step(toTensors(gradsAt(step)));
      const result = transform.update(toTensors(gradsAt(step)), state, expected);
      expected = applyUpdates(expected, result.updates);
      state = result.state;
    }
    for (const [name, x] of Object.entries(expected)) expect(params[name]!.dataSync()).toEqual(x.dataSync());
  });

  it("agrees with the fused kernel of the same rule to rounding, with groups, clipping, schedule and masked decay", () => {
    const [own, fused] = [start(), start()];
    const options = {
      learningRate: warmup(0.05, 3),
      weightDecay: 0.3,
      maxGradNorm: 0.5,
      decay: "matrices",
      shapes: { ...shapes, bias: [2] },
      groups: [{ params: ["bias"], beta1: 0.5, learningRate: 0.2 }],
    } as const;
    const optimizers = [new Adam(own, options), new AdamW(fused, options)];
    for (let step = 0; step < 10; step++) for (const optimizer of optimizers) optimizer.step(gradsAt(step));
    for (const [name, x] of Object.entries(own)) {
      for (const [i, value] of x.entries()) expect(Math.abs(value - fused[name]![i]!)).toBeLessThan(1e-5);
    }
    expect(optimizers[0]!.stateBytes()).toBe(optimizers[1]!.stateBytes());
  });

  it("names its state after the path in the transform's", () => {
    const { tensors, meta } = new Adam({ "wte.weight": new Float32Array(3) }).stateDict();
    expect(tensors).toEqual({ "wte.weight.0.m": new Float32Array(3), "wte.weight.0.v": new Float32Array(3) });
    expect(meta.numbers).toEqual({ "wte.weight.0.count": 0 });
  });

  it.each([false, true])("gives tensors the bits of typed arrays (together: %s)", async (together) => {
    const [arrays, tensors] = [start(), toTensors(start())];
    const rule = { ...adamRule, together };
    const options = { learningRate: 0.1, maxGradNorm: 1 };
    const onArrays = new TransformOptimizer(rule, arrays, { ...options, shapes });
    const onTensors = new TransformOptimizer(rule, tensors, options);
    for (let step = 0; step < 4; step++) {
      onArrays.step(gradsAt(step));
      onTensors.step(toTensors(gradsAt(step)));
    }
    for (const [name, x] of Object.entries(arrays)) expect(tensors[name]!.dataSync()).toEqual(x);
    expect(await onArrays.gradNorm()).toBe(await onTensors.gradNorm());
  });

  it("steps float32 masters of bfloat16 parameters", () => {
    const narrow = toTensors(start(), "bfloat16");
    const wide = Object.fromEntries(Object.entries(narrow).map(([name, x]) => [name, x.astype("float32")]));
    const [onNarrow, onWide] = [new Adam(narrow, { maxGradNorm: 0.5 }), new Adam(wide, { maxGradNorm: 0.5 })];
    for (let step = 0; step < 5; step++) {
      const grads = toTensors(gradsAt(step), "bfloat16");
      onNarrow.step(grads);
      onWide.step(Object.fromEntries(Object.entries(grads).map(([name, g]) => [name, g.astype("float32")])));
    }
    const masters = onNarrow.stateDict().tensors;
    for (const [name, x] of Object.entries(wide)) {
      expect(masters[`${name}.master`]!.dataSync()).toEqual(x.dataSync());
      expect(narrow[name]!.dataSync()).toEqual(x.astype("bfloat16").dataSync());
    }
  });

  it.each([false, true])("continues from its saved state bit by bit (together: %s)", (together) => {
    const rule = { ...adamRule, together };
    const options = { shapes, maxGradNorm: 1, learningRate: warmup(0.1, 7) };
    const straight = start();
    const uninterrupted = new TransformOptimizer(rule, straight, options);
    for (let step = 0; step < 8; step++) uninterrupted.step(gradsAt(step));
    const resumed = start();
    const first = new TransformOptimizer(rule, resumed, options);
    for (let step = 0; step < 4; step++) first.step(gradsAt(step));
    const { tensors, meta } = structuredClone(first.stateDict());
    const second = new TransformOptimizer(rule, resumed, options);
    second.loadStateDict({ tensors, meta: JSON.parse(JSON.stringify(meta)) });
    for (let step = 4; step < 8; step++) second.step(gradsAt(step));
    expect(resumed).toEqual(straight);
    expect(second.stateDict()).toEqual(uninterrupted.stateDict());
  });

  it("changes no parameter and no state array in a step whose gradients are not finite", () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const params = start();
      const optimizer = new Adam(params, { shapes, maxGradNorm: Number.POSITIVE_INFINITY });
      optimizer.step(gradsAt(0));
      const before = structuredClone({ params, state: optimizer.stateDict().tensors });
      const grads = gradsAt(1);
      grads.bias![1] = bad;
      optimizer.step(grads);
      expect({ params, state: optimizer.stateDict().tensors }).toEqual(before);
      expect(optimizer.stepCount).toBe(2);
    }
  });

  it("changes nothing in a step that fails", () => {
    const tensors = toTensors(start());
    const optimizer = new Adam(tensors, { learningRate: 0.1 });
    const { tensors: state } = optimizer.stateDict();
    state["bias.0.v"]!.dispose();
    expect(() => optimizer.step(toTensors(gradsAt(0)))).toThrow("disposed");
    expect(tensors.weight!.dataSync()).toEqual(start().weight);
    expect(state["weight.0.m"]!.dataSync()).toEqual(new Float32Array(6));
    expect(optimizer.stateDict().meta).toMatchObject({ stepCount: 0, numbers: { "weight.0.count": 0 } });
  });

  it("takes changed hyper-parameters in the next step", () => {
    const params = { p: Float64Array.of(0) };
    const optimizer = optimizerOf(params, ({ learningRate, weightDecay }) => scale(-learningRate * (1 + weightDecay)), {
      learningRate: 1,
    });
    optimizer.step({ p: Float64Array.of(1) });
    expect(params.p[0]).toBe(-1);
    optimizer.learningRate = 2;
    optimizer.paramGroups[0]!.weightDecay = 1;
    optimizer.step({ p: Float64Array.of(1) });
    expect(params.p[0]).toBe(-5); // −1 − 2·(1 + 1)
  });

  it("leaves parameters without a gradient alone, unless they are stepped together", () => {
    const params = start();
    const optimizer = new Adam(params, { shapes });
    optimizer.step({ bias: gradsAt(0).bias! });
    expect(params.weight).toEqual(start().weight);
    expect(optimizer.stateDict().meta).toMatchObject({
      steps: { weight: 0, bias: 1 },
      numbers: { "weight.0.count": 0, "bias.0.count": 1 },
    });
    const together = optimizerOf(start(), () => clipByGlobalNorm(1));
    expect(() => together.step({ bias: gradsAt(0).bias! })).toThrow(
      '[transform.step] steps all parameters of a group together; the gradient of "weight" is missing.',
    );
  });

  it("shows a transform all parameters of a group when they are stepped together", () => {
    const params = { a: Float64Array.of(0), b: Float64Array.of(0), c: Float64Array.of(0) };
    const grads = { a: Float64Array.of(3), b: Float64Array.of(4), c: Float64Array.of(12) };
    const optimizer = optimizerOf(params, ({ learningRate }) => chain(clipByGlobalNorm(1), scale(-learningRate)), {
      learningRate: 1,
      groups: [{ params: ["c"], learningRate: 2 }],
    });
    optimizer.step(grads);
    expect(params.a[0]).toBeCloseTo(-0.6, 6);
    expect(params.b[0]).toBeCloseTo(-0.8, 6);
    expect(params.c[0]).toBeCloseTo(-2, 6);
  });

  it("keeps apart state arrays that a transform passes from one name to another", () => {
    // Adds the gradient of two steps ago.
    const delay: GradientTransformation = {
      init: (params) => ({
        last: mapTrees((p) => zerosLike(p), params),
        before: mapTrees((p) => zerosLike(p), params),
      }),
      update: (grads, state) => {
        const { last, before } = state as { last: typeof grads; before: typeof grads };
        return { updates: before, state: { last: grads, before: last } };
      },
    };
    for (const params of [{ p: Float64Array.of(0) }, { p: tensor(Float64Array.of(0)) }]) {
      const optimizer = optimizerOf<Parameter>(params, () => delay);
      const values: number[] = [];
      for (const g of [1, 10, 100, 1000]) {
        const grad = Float64Array.of(g);
        optimizer.step({ p: params.p instanceof Float64Array ? grad : tensor(grad) });
        values.push((params.p instanceof Float64Array ? params.p : params.p.dataSync())[0] as number);
      }
      expect(values).toEqual([0, 0, 1, 11]);
    }
  });

  it("leaks nothing and keeps its state arrays, on the default device", () => {
    const params = Object.fromEntries(Object.entries(start()).map(([name, x]) => [name, tensor(x)]));
    const optimizer = new TransformOptimizer(
      { ...adamRule, transform: () => chain(scaleBySonew(), trace({ decay: 0.9 }), scaleByLearningRate(0.1)) },
      params,
      { maxGradNorm: 1 },
    );
    const grads = Object.fromEntries(Object.entries(gradsAt(0)).map(([name, x]) => [name, tensor(x)]));
    optimizer.step(grads);
    const before = memory().tensors;
    const { tensors } = optimizer.stateDict();
    for (let step = 0; step < 3; step++) optimizer.step(grads);
    expect(memory().tensors).toBe(before);
    for (const [name, x] of Object.entries(optimizer.stateDict().tensors)) expect(x).toBe(tensors[name]);
    optimizer.dispose();
    expect(memory().tensors).toBe(before - Object.keys(tensors).length - 1); // and the norm
  });

  it("refuses a state that changes its form or shapes, and numbers that JSON can't hold", () => {
    const growing = (update: (grads: Record<string, Tensor>) => object): GradientTransformation => ({
      init: () => ({ n: 1 }),
      update: (grads) => ({ updates: grads, state: update(grads as never) as never }),
    });
    const wider: GradientTransformation = {
      init: (params) => ({ m: params }),
      update: (grads) => ({ updates: grads, state: { m: mapTrees((g) => g.reshape([1, 1]), grads) } }),
    };
    const messages = [growing(() => ({ n: 1, more: 2 })), growing(() => ({ n: Number.POSITIVE_INFINITY })), wider].map(
      (transform) => {
        const params = { p: Float64Array.of(0) };
        const optimizer = optimizerOf(params, () => transform);
        try {
          optimizer.step({ p: Float64Array.of(1) });
          return "";
        } catch (error) {
          expect([params.p[0], optimizer.stepCount]).toEqual([0, 0]);
          return (error as Error).message;
        }
      },
    );
    expect(messages).toEqual([
      '[transform] the transform\'s state for "p" changed its form in a step; init and update must return the same keys.',
      '[transform] the transform\'s state for "p" has the number "n" = Infinity, which JSON can\'t hold.',
      '[transform] the transform\'s state for "p" had a float64 array "m" of shape [1] and now has a float64 one of shape [1, 1].',
    ]);
  });

  it("refuses decay of matrices where it would part a group", () => {
    expect(() => optimizerOf({ p: tensor([[1]]) }, () => scale(1), { decay: "matrices" })).toThrow(
      "[transform] steps all parameters of a group together, which decay of some would part.",
    );
  });
});
