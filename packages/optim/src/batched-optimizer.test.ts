/** What every optimizer whose transform makes batches must keep: the state of one parameter is its own. */
import { memory, type Tensor, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import {
  Muon,
  OnlineConvex,
  type Optimizer,
  type Parameter,
  PsgdKron,
  RfdSon,
  Shampoo,
  Sketchy,
  Soap,
  warmup,
} from "./index.js";

type Params = Record<string, Float32Array>;

/** Two matrices of one shape, one of another, two vectors. */
const shapes = { a: [4, 3], b: [4, 3], c: [3, 5], d: [4], e: [4] };
const start = (): Params =>
  Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => {
      const size = shape.reduce((product, n) => product * n, 1);
      return [name, Float32Array.from({ length: size }, (_, i) => Math.cos(i * i + name.charCodeAt(0)))];
    }),
  );
const gradsAt = (step: number): Params =>
  Object.fromEntries(
    Object.entries(start()).map(([name, x]) => [name, x.map((y, i) => Math.sin(3 * y + 5 * i + 7 * step))]),
  );

const wide = (p: Params): Record<string, Float64Array> =>
  Object.fromEntries(Object.entries(p).map(([name, x]) => [name, Float64Array.from(x)]));

type Make = <P extends Parameter>(params: Record<string, P>, options: object) => Optimizer<P>;

/** Name, constructor, and options that descend on a quadratic. */
const kinds: [string, Make, object][] = [
  ["Muon", (p, options) => new Muon(p, options), {}],
  [
    "Muon, an AdamW group",
    (p, options) => new Muon(p, { groups: [{ params: /^c$/, method: "adamw" }], ...options }),
    {},
  ],
  ["Shampoo", (p, options) => new Shampoo(p, { mergeDims: 2, rootEvery: 2, ...options }), {}],
  [
    "Shampoo, blocks, coupled Newton",
    (p, options) => new Shampoo(p, { mergeDims: 2, blockSize: 2, root: "coupledNewton", graft: "none", ...options }),
    {},
  ],
  ["Sketchy", (p, options) => new Sketchy(p, { mergeDims: 2, rank: 2, updateEvery: 2, ...options }), {}],
  ["Soap", (p, options) => new Soap(p, { preconditionFrequency: 2, ...options }), {}],
  ["PsgdKron", (p, options) => new PsgdKron(p, { damping: 0, ...options }), {}],
  ["RfdSon", (p, options) => new RfdSon(p, { rank: 2, ...options }), { learningRate: 0.2 }],
  ...(["sAdagrad", "rfdSon", "fdSon", "adaFd", "ogd", "adagrad"] as const).map((algorithm): [string, Make, object] => [
    `OnlineConvex ${algorithm}`,
    (p, options) => new OnlineConvex(p, { algorithm, sketchSize: 3, delta: 0.1, ...options }),
    { learningRate: 0.3, delta: 2 },
  ]),
];

const toTensors = (p: Params): Record<string, Tensor> =>
  Object.fromEntries(
    Object.entries(p).map(([name, x]) => [name, tensor(x, { shape: shapes[name as "a"], device: "cpu" })]),
  );

describe.each(kinds)("%s", (_name, make, descent) => {
  it("steps parameters together as it steps each alone, also those that missed a step", () => {
    const [together, alone] = [wide(start()), wide(start())];
    const optimizer = make(together, { shapes, learningRate: 0.05 });
    const each = Object.keys(alone).map((name) => {
      const own = { [name]: alone[name]! };
      return make(own, { shapes: { [name]: shapes[name as "a"] }, learningRate: 0.05 });
    });
    for (let step = 0; step < 6; step++) {
      const { b, d, ...some } = gradsAt(step);
      const grads = wide(step === 2 ? some : { ...some, b: b!, d: d! });
      optimizer.step(grads);
      for (const [i, name] of Object.keys(alone).entries()) if (grads[name]) each[i]!.step({ [name]: grads[name] });
    }
    for (const [name, x] of Object.entries(together)) {
      for (const [i, value] of x.entries())
        expect(Math.abs(value - alone[name]![i]!), `${name}[${i}]`).toBeLessThan(1e-10);
    }
  });

  it("gives tensors the bits of typed arrays", () => {
    const [arrays, tensors] = [start(), toTensors(start())];
    const onArrays = make(arrays, { shapes, learningRate: 0.05, maxGradNorm: 1 });
    const onTensors = make(tensors, { learningRate: 0.05, maxGradNorm: 1 });
    for (let step = 0; step < 4; step++) {
      onArrays.step(gradsAt(step));
      onTensors.step(toTensors(gradsAt(step)));
    }
    for (const [name, x] of Object.entries(arrays)) expect(tensors[name]!.dataSync(), name).toEqual(x);
    expect(onTensors.stateBytes()).toBe(onArrays.stateBytes());
  });

  it("continues from its saved state bit by bit", () => {
    const options = { shapes, learningRate: warmup(0.05, 7), maxGradNorm: 1 };
    const straight = start();
    const uninterrupted = make(straight, options);
    for (let step = 0; step < 7; step++) uninterrupted.step(gradsAt(step));

    const resumed = start();
    const first = make(resumed, options);
    for (let step = 0; step < 3; step++) first.step(gradsAt(step));
    const { tensors, meta } = first.stateDict();
    const saved = { tensors: structuredClone(tensors), meta: JSON.parse(JSON.stringify(meta)) };
    const second = make(resumed, options);
    second.loadStateDict(saved);
    for (let step = 3; step < 7; step++) second.step(gradsAt(step));
    expect(resumed).toEqual(straight);
    expect(second.stateDict()).toEqual(uninterrupted.stateDict());
  });

  it("changes nothing in a step whose gradients are not finite", () => {
    const params = start();
    const optimizer = make(params, { shapes, maxGradNorm: Number.POSITIVE_INFINITY });
    optimizer.step(gradsAt(0));
    const before = structuredClone({ params, state: optimizer.stateDict().tensors });
    const grads = gradsAt(1);
    grads.b![1] = Number.NaN;
    optimizer.step(grads);
    expect({ params, state: optimizer.stateDict().tensors }).toEqual(before);
  });

  it("leaks nothing", () => {
    const params = toTensors(start());
    const optimizer = make(params, { learningRate: 0.05 });
    const grads = toTensors(gradsAt(1));
    for (let step = 0; step < 2; step++) optimizer.step(grads);
    const before = memory().tensors;
    for (let step = 0; step < 3; step++) optimizer.step(grads);
    expect(memory().tensors).toBe(before);
  });

  it("descends on a quadratic", () => {
    const params = start();
    const optimizer = make(params, { shapes, learningRate: 0.02, ...descent });
    const loss = () => Object.values(params).reduce((sum, x) => sum + x.reduce((s, y) => s + y * y, 0), 0);
    const first = loss();
    for (let step = 0; step < 60; step++) {
      optimizer.step(Object.fromEntries(Object.entries(params).map(([name, x]) => [name, x.slice()])));
    }
    expect(loss()).toBeLessThan(0.7 * first);
  });

  it("refuses options that it doesn't know", () => {
    expect(() => make(start(), { momentun: 0.9 })).toThrow('unknown option "momentun"');
  });
});

describe("a batched rule", () => {
  it("names the state of a parameter without the parameter inside", () => {
    const { tensors, meta } = new Shampoo(
      { w: new Float32Array(6) },
      { shapes: { w: [2, 3] }, mergeDims: 2 },
    ).stateDict();
    expect(Object.keys(tensors).sort()).toEqual([
      "w.0.factors.roots.0.0",
      "w.0.factors.roots.0.1",
      "w.0.factors.statistics.0.0",
      "w.0.factors.statistics.0.1",
      "w.0.graft",
      "w.0.momentum",
    ]);
    expect(meta.numbers).toEqual({ "w.0.count": 0, "w.2.count": 0 });
  });

  it("refuses states of different steps where parameters have taken as many", () => {
    const optimizer = new Shampoo(start(), { shapes });
    optimizer.step(gradsAt(0));
    const { tensors, meta } = optimizer.stateDict();
    optimizer.loadStateDict({ tensors, meta: { ...meta, numbers: { ...meta.numbers, "b.0.count": 7 } } });
    expect(() => optimizer.step(gradsAt(1))).toThrow(
      "[shampoo] the states of parameters that are stepped together differ in what isn't theirs alone.",
    );
  });
});
