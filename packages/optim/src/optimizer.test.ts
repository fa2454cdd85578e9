import { DTypeError, FormatError, OptionError, ShapeError } from "@llmeff/native";
import { copyInto, mul, scope, type Tensor, tensor, zeros } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { AdamW, Muon, ParameterEma, SGD, Sonew, vectors, warmup } from "./index.js";

type Params = Record<string, Float32Array>;

function params(): Params {
  return {
    weight: Float32Array.of(1, 2, 3, 4, 5, 6),
    bias: Float32Array.of(1, -1),
    table: Float32Array.of(0.5, 0.25, -2, 8),
  };
}
const shapes = { weight: [2, 3], table: [2, 2] };

/** Gradients that differ from step to step. */
function gradsAt(step: number): Params {
  return Object.fromEntries(
    Object.entries(params()).map(([name, values]) => [name, values.map((x, i) => Math.sin(x + 3 * i + 7 * step))]),
  );
}

describe("fused optimizers", () => {
  it("take the norm that they are given for that of the gradients, unless these are others", async () => {
    const make = () => {
      const p = { a: Float32Array.of(1), b: Float32Array.of(1) };
      return { p, optimizer: new SGD(p, { learningRate: 1, maxGradNorm: 1 }) };
    };
    const grads = { a: Float32Array.of(3), b: Float32Array.of(4) };
    const measured = make();
    measured.optimizer.step(grads);
    const told = make();
    told.optimizer.step(grads, { gradNorm: 5 });
    expect(told.p).toEqual(measured.p);
    expect(await told.optimizer.gradNorm()).toBe(5);
    // Twice the norm is half the step.
    const wrong = make();
    wrong.optimizer.step(grads, { gradNorm: 10 });
    expect(wrong.p.a[0]).toBeCloseTo(1 - 3 / 10, 5);
    const hooked = make();
    hooked.optimizer.hooks.beforeStep(() => ({ a: Float32Array.of(0), b: Float32Array.of(2) }));
    hooked.optimizer.step(grads, { gradNorm: 5 });
    expect(await hooked.optimizer.gradNorm()).toBe(2);
    for (const gradNorm of [-1, "5" as never]) {
      expect(() => told.optimizer.step(grads, { gradNorm })).toThrow(/gradNorm must be a number of at least 0/);
    }
    expect(told.p).toEqual(measured.p);
    told.optimizer.step(grads, { gradNorm: Number.NaN });
    expect(told.p).toEqual(measured.p);
    expect([await told.optimizer.gradNorm(), told.optimizer.stepCount]).toEqual([Number.NaN, 2]);
  });

  it("measure the norm of gradients that a hook has changed in place, whatever norm they are given", async () => {
    const of = (value: number) => tensor(Float32Array.of(value), { device: "cpu" });
    const p = { a: of(1), b: of(1) };
    const optimizer = new SGD(p, { learningRate: 1, maxGradNorm: 1 });
    const remove = optimizer.hooks.beforeStep((grads) => {
      remove();
      for (const grad of Object.values(grads)) scope(() => copyInto(grad, mul(grad, 0.1)));
    });
    optimizer.step({ a: of(3), b: of(4) }, { gradNorm: 5 });
    expect(await optimizer.gradNorm()).toBeCloseTo(0.5, 6);
    expect([p.a.dataSync()[0], p.b.dataSync()[0]]).toEqual([expect.closeTo(0.7, 6), expect.closeTo(0.6, 6)]);
  });

  it("clip by the global norm of all gradients", async () => {
    // |(3, 4)| = 5, clipped to 1: without averaging SGD-like momentum graft, p = −lr · g / (5 + 1e-6)
    const p = { a: Float64Array.of(0), b: Float64Array.of(0) };
    const optimizer = new AdamW(p, { beta1: 0, beta2: 0, eps: 1e6, weightDecay: 0, learningRate: 1e6, maxGradNorm: 1 });
    optimizer.step({ a: Float64Array.of(3), b: Float64Array.of(4) });
    expect(await optimizer.gradNorm()).toBe(5);
    expect(p.a[0]).toBeCloseTo(-0.6, 5);
    expect(p.b[0]).toBeCloseTo(-0.8, 5);
  });

  it("count a skipped step for schedule and bias correction", () => {
    const p = Float64Array.of(0);
    const optimizer = new AdamW({ p }, { learningRate: (step) => step + 1, weightDecay: 0, maxGradNorm: 1e9 });
    optimizer.step({ p: Float64Array.of(Number.NaN) });
    expect(p[0]).toBe(0);
    optimizer.step({ p: Float64Array.of(0.5) });
    // m = 0.1·g and v = 0.001·g² are those of a first step, corrected as those of a second.
    expect(p[0]).toBeCloseTo((-2 * (0.1 / (1 - 0.9 ** 2))) / Math.sqrt(0.001 / (1 - 0.999 ** 2)), 6);
  });

  it("leave gradients under the limit alone", () => {
    const clipped = params();
    const plain = params();
    new Sonew(clipped, { maxGradNorm: 1e9 }).step(gradsAt(0));
    new Sonew(plain).step(gradsAt(0));
    expect(clipped).toEqual(plain);
  });

  it("give groups their own hyper-parameters; the first match counts", () => {
    const p = params();
    const optimizer = new AdamW(p, {
      shapes,
      learningRate: 0.1,
      weightDecay: 0.5,
      groups: [
        { params: vectors, weightDecay: 0 },
        { params: /table|bias/, learningRate: 0 },
      ],
    });
    expect(optimizer.paramGroups.map((group) => group.params)).toEqual([["bias"], ["table"], ["weight"]]);
    const zero = Object.fromEntries(Object.entries(p).map(([name, x]) => [name, new Float32Array(x.length)]));
    optimizer.step(zero);
    expect(p.bias).toEqual(params().bias); // no decay
    expect(p.table).toEqual(params().table); // no rate
    expect(p.weight![0]).toBeCloseTo(0.95, 6); // 1 − 0.1·0.5
  });

  it("decay only matrices when asked", () => {
    const p = params();
    const optimizer = new AdamW(p, {
      shapes: { ...shapes, bias: [2] },
      decay: "matrices",
      weightDecay: 1,
      learningRate: 0.5,
    });
    optimizer.step(Object.fromEntries(Object.entries(p).map(([name, x]) => [name, new Float32Array(x.length)])));
    expect(p.bias).toEqual(params().bias);
    expect(p.weight).toEqual(params().weight!.map((x) => x / 2));
  });

  it("take a new learning rate between steps, in groups without one of their own", () => {
    const optimizer = new AdamW(params(), { learningRate: 1, groups: [{ params: ["bias"], learningRate: 7 }] });
    optimizer.learningRate = warmup(4, 4);
    expect(optimizer.learningRate).toBe(1);
    expect(optimizer.paramGroups[0]!.learningRate).toBe(7);
    optimizer.step(gradsAt(0));
    expect(optimizer.learningRate).toBe(2);
  });

  it("leave parameters without a gradient alone and count their steps apart", () => {
    const p = params();
    const optimizer = new AdamW(p);
    optimizer.step({ bias: gradsAt(0).bias! });
    optimizer.step(gradsAt(1));
    expect(optimizer.stateDict().meta.steps).toEqual({ weight: 1, bias: 2, table: 1 });
    const late = params();
    new AdamW({ weight: late.weight! }).step({ weight: gradsAt(1).weight! });
    expect(p.weight).toEqual(late.weight); // as if its first step were the first
  });

  it("leave a parameter without a gradient alone whose name every object inherits", () => {
    const p = Object.fromEntries(["constructor", "__proto__", "w"].map((name) => [name, Float32Array.of(1)]));
    const optimizer = new AdamW(p, { decay: "matrices", shapes: { constructor: [1, 1], ["__proto__"]: [1], w: [1] } });
    optimizer.step({ w: Float32Array.of(1) });
    expect(optimizer.stateDict().meta.steps).toEqual(
      Object.fromEntries(Object.keys(p).map((name) => [name, name === "w" ? 1 : 0])),
    );
    expect(Object.keys(optimizer.params)).toEqual(Object.keys(p));
    const shapeless = { constructor: Float32Array.of(1) };
    expect(() => new AdamW(shapeless, { decay: "matrices" })).toThrow('give shapes: { "constructor": [rows, columns]');
  });

  it("tell the bytes of their state", () => {
    expect(new AdamW(params()).stateBytes()).toBe(12 * 2 * 4);
    expect(new Sonew(params()).stateBytes()).toBe(12 * 3 * 4);
    expect(new Sonew({ p: new Float64Array(5) }, { graft: "rmspropNorm" }).stateBytes()).toBe(5 * 4 * 8);
  });

  it("take parts of one buffer that don't overlap", () => {
    const { buffer } = new Float32Array(6);
    const parts = { b: new Float32Array(buffer, 8, 4), a: new Float32Array(buffer, 0, 2) };
    new AdamW(parts, { learningRate: 1, weightDecay: 0 }).step({ a: Float32Array.of(1, 1), b: new Float32Array(4) });
    expect(Array.from(new Float32Array(buffer), Math.round)).toEqual([-1, -1, 0, 0, 0, 0]);
  });

  it("take parts of one tensor that don't overlap, also of memory that has other names", () => {
    const whole = tensor([1, 2, 3, 4, 5, 6], { shape: [3, 2] });
    const [a, b, c] = [2, 0, 1].map((i) => whole.slice(0, i, i + 1));
    const other = tensor([7, 8]);
    const alias = other.detach();
    const optimizer = new SGD({ a: a!, b: b!, other }, { learningRate: 1 });
    optimizer.addParamGroup({ params: { c: c! } });
    optimizer.step(Object.fromEntries(["a", "b", "c"].map((name) => [name, tensor([1, 1], { shape: [1, 2] })])));
    expect(Array.from(whole.dataSync())).toEqual([0, 1, 2, 3, 4, 5]);
    expect(Array.from(alias.dataSync())).toEqual([7, 8]);
  });

  const ok = Float32Array.of(1);
  const both = tensor([1]);
  const matrix = tensor([1, 2, 3, 4, 5, 6], { shape: [3, 2] });
  it.each<[string, () => unknown, new (message: string) => Error, string]>([
    ["no parameters", () => new AdamW({}), OptionError, "[AdamW] expected at least one parameter"],
    ["a number as parameter", () => new AdamW({ a: 3 as never }), OptionError, 'parameter "a" must be a Tensor'],
    [
      "mixed kinds",
      () => new AdamW<Float32Array | Float64Array>({ a: ok, b: new Float64Array(1) }),
      DTypeError,
      "received Float32Array and Float64Array",
    ],
    [
      "an int32 tensor",
      () => new AdamW({ a: tensor(new Int32Array(2)) }),
      DTypeError,
      "optimizers step floating-point tensors",
    ],
    ["an empty array", () => new AdamW({ a: new Float32Array(0) }), ShapeError, 'parameter "a" is empty'],
    ["a strided view", () => new AdamW({ a: zeros([2, 3]).T }), ShapeError, "strided view"],
    [
      "one array twice",
      () => new AdamW({ a: ok, b: ok }),
      OptionError,
      '[AdamW] parameters "a" and "b" are the same memory',
    ],
    [
      "one tensor twice",
      () => new Sonew({ a: both, b: both }),
      OptionError,
      '[Sonew] parameters "a" and "b" are the same',
    ],
    [
      "one tensor and another name for its memory",
      () => new AdamW({ a: both, b: both.detach() }),
      OptionError,
      '[AdamW] parameters "a" and "b" are the same memory',
    ],
    [
      "one tensor and its memory under another shape",
      () => new AdamW({ a: matrix, x: tensor([1]).detach(), b: matrix.reshape([6]) }),
      OptionError,
      '[AdamW] parameters "a" and "b" are the same memory',
    ],
    [
      "a tensor and a part of it",
      () => new Muon({ part: matrix.slice(0, 2, 3), whole: matrix }),
      OptionError,
      '[Muon] parameters "whole" and "part" are the same memory',
    ],
    [
      "parts of a tensor that overlap",
      () => new AdamW({ a: matrix.slice(0, 1, 3), x: matrix.slice(0, 0, 1).clone(), b: matrix.slice(0, 0, 2) }),
      OptionError,
      'parameters "b" and "a" are the same memory',
    ],
    [
      "a later view of what it has",
      () => new AdamW<Tensor>({ a: matrix }).addParamGroup({ params: { b: matrix.reshape([2, 3]) } }),
      OptionError,
      '[AdamW.addParamGroup] parameters "b" and "a" are the same memory',
    ],
    [
      "an average of one memory under two names",
      () => new ParameterEma({ a: matrix, b: matrix.detach() }),
      OptionError,
      '[ParameterEma] parameters "a" and "b" are the same memory',
    ],
    [
      "overlapping arrays",
      () => new AdamW({ a: new Float32Array(ok.buffer, 0, 1), c: new Float32Array(2), b: ok.subarray(0) }),
      OptionError,
      'parameters "a" and "b" are the same memory',
    ],
    ["a negative rate", () => new AdamW({ a: ok }, { learningRate: -1 }), OptionError, "[AdamW] learningRate must be"],
    [
      "beta2 of 1",
      () => new AdamW({ a: ok }, { beta2: 1 }),
      OptionError,
      "[AdamW] beta2 must be a number in [0, 1); received 1.",
    ],
    ["a NaN eps", () => new AdamW({ a: ok }, { eps: Number.NaN }), OptionError, "[AdamW] eps must be"],
    [
      "maxGradNorm 0",
      () => new AdamW({ a: ok }, { maxGradNorm: 0 }),
      OptionError,
      "[AdamW] maxGradNorm must be a positive number; received 0.",
    ],
    [
      "a misspelt option",
      () => new AdamW({ a: ok }, { weigthDecay: 1 } as object),
      OptionError,
      'unknown option "weigthDecay"',
    ],
    [
      "a misspelt group option",
      () => new AdamW({ a: ok }, { groups: [{ params: /a/, lr: 1 } as never] }),
      OptionError,
      'unknown option "lr"',
    ],
    [
      "a bad group value",
      () => new AdamW({ a: ok }, { groups: [{ params: /a/, beta1: 2 }] }),
      OptionError,
      "[groups[0]] beta1",
    ],
    [
      "an unknown name in a group",
      () => new AdamW({ a: ok }, { groups: [{ params: ["b"] }] }),
      OptionError,
      'there is no parameter "b"',
    ],
    [
      "matrices without shapes",
      () => new AdamW({ a: ok }, { decay: "matrices" }),
      OptionError,
      'decay "matrices" needs to know',
    ],
    [
      "an unknown gradient",
      () => new AdamW({ a: ok }).step({ b: ok }),
      OptionError,
      '[AdamW.step] there is no parameter "b"',
    ],
    [
      "a gradient of another size",
      () => new AdamW({ a: ok }).step({ a: new Float32Array(2) }),
      ShapeError,
      "must have shape [1]; received [2]",
    ],
    [
      "a gradient of another type",
      () => new AdamW<Float32Array | Float64Array>({ a: ok }).step({ a: new Float64Array(1) }),
      DTypeError,
      "must be a Float32Array; received Float64Array",
    ],
    [
      "a schedule that gives NaN",
      () => new AdamW({ a: ok }, { learningRate: () => Number.NaN }).step({ a: ok }),
      OptionError,
      "[AdamW] [step 0] learningRate must be",
    ],
    [
      "another optimizer's state",
      () => new Sonew({ a: ok }).loadStateDict(new AdamW({ a: ok }).stateDict()),
      FormatError,
      "expected the state of sonew",
    ],
    [
      "another model's state",
      () => new AdamW({ a: ok }).loadStateDict(new AdamW({ b: ok }).stateDict()),
      FormatError,
      '"a.m" is missing',
    ],
    [
      "state of another size",
      () => new AdamW({ a: ok }).loadStateDict(new AdamW({ a: new Float32Array(2) }).stateDict()),
      FormatError,
      '"a.m" must be a Float32Array of 1 elements; received a Float32Array of 2 elements.',
    ],
  ])("refuse %s", (_what, act, ErrorClass, message) => {
    expect(act).toThrow(ErrorClass);
    expect(act).toThrow(message);
  });

  it("don't load half of a state that does not fit", () => {
    const own = new AdamW({ a: Float32Array.of(1), b: Float32Array.of(1) });
    const other = new AdamW({ a: Float32Array.of(1) });
    other.step({ a: Float32Array.of(1) });
    expect(() => own.loadStateDict(other.stateDict())).toThrow('"b.m" is missing');
    expect(own.stateDict().tensors["a.m"]).toEqual(Float32Array.of(0));
    expect(own.stepCount).toBe(0);
  });

  it("report a disposed parameter", () => {
    const a: Tensor = tensor([1, 2]);
    const optimizer = new AdamW({ a });
    const grad = tensor([1, 1]);
    a.dispose();
    expect(() => optimizer.step({ a: grad })).toThrow("disposed");
    expect(optimizer.stepCount).toBe(0);
  });
});
