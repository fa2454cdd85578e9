import { memory, type Tensor, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import {
  AdamW,
  cosine,
  matrices,
  matricesTo,
  type Optimizer,
  optimizerOf,
  type Parameter,
  type RouteOptions,
  route,
  SGD,
  Sonew,
  scale,
} from "./index.js";

type Arrays = Record<string, Float32Array>;
const shapes = { "embed.weight": [2, 2], "up.weight": [2, 3] };
const start = (): Arrays => ({
  "embed.weight": Float32Array.of(0.5, 0.25, -2, 8),
  "up.weight": Float32Array.of(1, 2, 3, 4, 5, 6),
  norm: Float32Array.of(1, -1),
});
const gradsAt = (step: number): Arrays =>
  Object.fromEntries(
    Object.entries(start()).map(([name, x]) => [name, x.map((y, i) => Math.sin(y + 3 * i + 7 * step))]),
  );
const toTensors = (arrays: Arrays): Record<string, Tensor> =>
  Object.fromEntries(
    Object.entries(arrays).map(([name, x]) => [
      name,
      tensor(x, { shape: shapes[name as "up.weight"] ?? [x.length], device: "cpu" }),
    ]),
  );
const sonewOptions = { eps: 1e-4, learningRate: 0.02 };
const adamwOptions = { learningRate: 0.1, weightDecay: 0.3 };
const make = <P extends Parameter>(params: Record<string, P>, options: RouteOptions = {}) =>
  matricesTo(params, (p, own) => new Sonew(p, { ...sonewOptions, shapes: own }), { adamw: adamwOptions, ...options });

describe("route", () => {
  it("steps each parameter as its own optimizer does", () => {
    const [together, apart] = [start(), start()];
    const optimizer = make(together, { shapes });
    const { "up.weight": up, ...rest } = apart;
    const parts: Optimizer<Float32Array>[] = [
      new Sonew({ "up.weight": up! }, sonewOptions),
      new AdamW(rest, adamwOptions),
    ];
    for (let step = 0; step < 4; step++) {
      const grads = gradsAt(step);
      optimizer.step(grads);
      const { "up.weight": upGrad, ...others } = grads;
      parts[0]!.step({ "up.weight": upGrad! });
      parts[1]!.step(others);
    }
    expect(together).toEqual(apart);
    expect(optimizer.stateBytes()).toBe(parts.reduce((bytes, part) => bytes + part.stateBytes(), 0));
    expect(optimizer.stepCount).toBe(4);
    expect(optimizer.paramGroups.map((group) => group.params)).toEqual([["up.weight"], ["embed.weight", "norm"]]);
  });

  it("clips by the norm of all gradients", async () => {
    const params = { a: Float64Array.of(0), b: Float64Array.of(0) };
    const sgd = (p: Record<string, Float64Array<ArrayBuffer>>) =>
      optimizerOf(p, ({ learningRate }) => scale(-learningRate), { learningRate: 1 });
    const optimizer = route(params, [{ params: ["a"], optimizer: sgd }, { optimizer: sgd }], { maxGradNorm: 1 });
    optimizer.step({ a: Float64Array.of(3), b: Float64Array.of(4) });
    expect(await optimizer.gradNorm()).toBe(5);
    expect([params.a[0], params.b[0]]).toEqual([expect.closeTo(-0.6, 6), expect.closeTo(-0.8, 6)]);
  });

  it.each<[string, "all" | "part"]>([
    ["of the route", "all"],
    ["of one of its parts", "part"],
  ])("measures gradients that a hook %s has changed in place, whatever norm it is given", async (_, whose) => {
    const params = { a: Float32Array.of(1), b: Float32Array.of(1) };
    const sgd = (p: Arrays) => new SGD(p, { learningRate: 1 });
    const optimizer = route(params, [{ params: ["a"], optimizer: sgd }, { optimizer: sgd }], { maxGradNorm: 1 });
    const tenth = (grads: Arrays) => {
      for (const grad of Object.values(grads)) grad[0]! *= 0.1;
    };
    (whose === "all" ? optimizer : optimizer.parts[1]!).hooks.beforeStep(tenth);
    optimizer.step({ a: Float32Array.of(whose === "all" ? 3 : 0.3), b: Float32Array.of(4) }, { gradNorm: 5 });
    expect(await optimizer.gradNorm()).toBeCloseTo(0.5, 6);
    expect([params.a[0], params.b[0]]).toEqual([expect.closeTo(0.7, 6), expect.closeTo(0.6, 6)]);
  });

  it("gives the same bits on tensors as on typed arrays, and leaks nothing", () => {
    const [arrays, tensors] = [start(), toTensors(start())];
    const onArrays = make(arrays, { shapes, maxGradNorm: 0.5 });
    const onTensors = make(tensors, { maxGradNorm: 0.5 });
    const grads = [0, 1, 2, 3].map((step) => toTensors(gradsAt(step)));
    let before = 0;
    for (const [step, grad] of grads.entries()) {
      onArrays.step(gradsAt(step));
      onTensors.step(grad);
      if (step === 0) before = memory().tensors;
    }
    expect(memory().tensors).toBe(before);
    for (const [name, x] of Object.entries(arrays)) expect(tensors[name]!.dataSync()).toEqual(x);
    onTensors.dispose();
    expect(memory().tensors).toBe(before - 3 - 4 - 2); // SONew's, AdamW's, and SONew's counter and the norm
  });

  it("changes nothing of any route in a step whose gradients are not finite in one", () => {
    const params = start();
    const optimizer = make(params, { shapes, nonFinite: "skip" });
    optimizer.step(gradsAt(0));
    const before = structuredClone([params, optimizer.stateDict().tensors]);
    optimizer.step({ ...gradsAt(1), norm: Float32Array.of(Number.NaN, 0) });
    expect([params, optimizer.stateDict().tensors]).toEqual(before);
  });

  it("changes nothing of any route in a step that fails in one", () => {
    const params = toTensors(start());
    const optimizer = make(params);
    const { tensors } = optimizer.stateDict();
    tensors["norm.m"]!.dispose();
    expect(() => optimizer.step(toTensors(gradsAt(0)))).toThrow("disposed");
    expect(params["up.weight"]!.dataSync()).toEqual(start()["up.weight"]);
    expect(tensors["up.weight.m"]!.dataSync()).toEqual(new Float32Array(6));
    expect([optimizer.stepCount, ...optimizer.parts.map((part) => part.stepCount)]).toEqual([0, 0, 0]);
  });

  it("continues from its saved state bit by bit", () => {
    const options = { shapes, maxGradNorm: 1, learningRate: cosine(0.1, 10) };
    const [straight, resumed] = [start(), start()];
    const uninterrupted = make(straight, options);
    for (let step = 0; step < 8; step++) uninterrupted.step(gradsAt(step));
    const first = make(resumed, options);
    for (let step = 0; step < 4; step++) first.step(gradsAt(step));
    const { tensors, meta } = structuredClone(first.stateDict());
    const second = make(resumed, options);
    second.loadStateDict({ tensors, meta: JSON.parse(JSON.stringify(meta)) });
    expect(second.learningRate).toBe(cosine(0.1, 10)(4));
    for (let step = 4; step < 8; step++) second.step(gradsAt(step));
    expect(resumed).toEqual(straight);
    expect(second.stateDict()).toEqual(uninterrupted.stateDict());
  });

  it("has one learning rate for all, times their factors, if it is given or assigned", () => {
    const optimizer = make(start(), { shapes });
    expect([optimizer.learningRate, ...optimizer.parts.map((part) => part.learningRate)]).toEqual([0.02, 0.02, 0.1]);
    optimizer.learningRate = 3;
    expect(optimizer.parts.map((part) => part.learningRate)).toEqual([3, 3]);
    const scheduled = route(
      start(),
      [
        { params: matrices, optimizer: (p, own) => new Sonew(p, { shapes: own }), learningRateFactor: 10 },
        { optimizer: (p) => new AdamW(p) },
      ],
      { shapes, learningRate: (step) => step + 1 },
    );
    scheduled.step(gradsAt(0));
    expect([scheduled.learningRate, ...scheduled.parts.map((part) => part.learningRate)]).toEqual([2, 20, 2]);
  });

  it("runs its own hooks and those of its parts", () => {
    const optimizer = make(start(), { shapes });
    const seen: string[] = [];
    optimizer.hooks.beforeStep((grads) => void seen.push(`all ${Object.keys(grads)}`));
    optimizer.parts[0]!.hooks.beforeStep((grads: Arrays) => void seen.push(`part ${Object.keys(grads)}`));
    optimizer.hooks.afterStep(() => seen.push("after"));
    optimizer.step(gradsAt(0));
    expect(seen).toEqual(["all embed.weight,up.weight,norm", "part up.weight", "after"]);
  });

  it("tells hyper-parameters of all parts as JSON", () => {
    const { hyper, optimizer } = make(start(), { shapes, maxGradNorm: 2 }).stateDict().meta;
    expect(optimizer).toBe("route(sonew,adamw)");
    expect(hyper).toMatchObject({
      maxGradNorm: 2,
      groups: [
        { optimizer: "sonew", decay: "all", params: ["up.weight"], eps: 1e-4 },
        { optimizer: "adamw", decay: "all", params: ["embed.weight", "norm"], weightDecay: 0.3 },
      ],
    });
    expect(JSON.parse(JSON.stringify(hyper))).toEqual(hyper);
  });

  it("leaves out a rest that is empty", () => {
    const optimizer = matricesTo({ w: new Float32Array(4) }, (p, own) => new Sonew(p, { shapes: own }), {
      shapes: { w: [2, 2] },
    });
    expect(optimizer.kind).toBe("route(sonew)");
  });

  const adamwOf = (p: Arrays) => new AdamW(p);
  it.each<[string, () => unknown, string]>([
    [
      "a route that chooses nothing",
      () => route(start(), [{ params: /x/, optimizer: adamwOf }, { optimizer: adamwOf }]),
      "[route] routes[0] chooses no parameter. Parameters: embed.weight, up.weight, norm.",
    ],
    [
      "a parameter without a route",
      () => route(start(), [{ params: /weight/, optimizer: adamwOf }]),
      '[route] no route chooses "norm". Add a last route',
    ],
    ["no options", () => route(start(), [{ optimizer: adamwOf }], null as never), "[route] options must be an object"],
    ["nothing for routes", () => route(start(), null as never), "[route] routes must be an array; received null."],
    ["nothing for a route", () => route(start(), [null as never]), "[routes[0]] options must be an object"],
    [
      "a misspelt route",
      () => route(start(), [{ param: /x/, optimizer: adamwOf } as never]),
      '[routes[0]] unknown option "param". Known options: params, optimizer, learningRateFactor.',
    ],
    [
      "nothing that makes an optimizer",
      () => route(start(), [{ optimizer: null as never }]),
      "[routes[0]] optimizer must be a function that makes one; received null.",
    ],
    ["null for matricesTo", () => matricesTo(start(), adamwOf, null as never), "[matricesTo] options must be"],
    ["no routes", () => route(start(), []), '[route] no route chooses "embed.weight"'],
    [
      "a rest before the end",
      () => route(start(), [{ optimizer: adamwOf }, { params: /x/, optimizer: adamwOf }]),
      "[route] routes[0] has no params, which only the last route may leave out.",
    ],
    [
      "an unknown name",
      () => route(start(), [{ params: ["nom"], optimizer: adamwOf }, { optimizer: adamwOf }]),
      '[routes[0]] there is no parameter "nom"',
    ],
    [
      "clipping in a part",
      () => route(start(), [{ optimizer: (p) => new AdamW(p, { maxGradNorm: 1 }) }]),
      "[route] adamw has maxGradNorm 1, which would see its own gradients only",
    ],
    [
      "an optimizer of other parameters",
      () => route(start(), [{ optimizer: () => new AdamW<Float32Array>({ x: new Float32Array(1) }) }]),
      "must be made for the parameters it is given (embed.weight, up.weight, norm); received one for x.",
    ],
    [
      "an optimizer of other arrays under the same names",
      () => route(start(), [{ optimizer: () => new AdamW<Float32Array>(start()) }]),
      '[route] [routes[0]] optimizer must be made for the parameters it is given; in the one received "embed.weight" is another array.',
    ],
    [
      "an optimizer of copies of tensors",
      () => {
        const t = tensor([1, 2]);
        return route({ t }, [{ optimizer: () => new AdamW<Tensor>({ t: t.clone() }) }]);
      },
      'in the one received "t" is another array.',
    ],
    [
      "no optimizer",
      () => route(start(), [{ optimizer: (() => 3) as never }]),
      "optimizer must return an optimizer of @llmeff/optim; received 3.",
    ],
    [
      "a factor of 0",
      () => route(start(), [{ optimizer: adamwOf, learningRateFactor: 0 }]),
      "learningRateFactor must be a positive number; received 0.",
    ],
    [
      "the same memory in two routes",
      () => {
        const a = new Float32Array(2);
        return route({ a, b: a }, [{ params: ["a"], optimizer: adamwOf }, { optimizer: adamwOf }]);
      },
      "are the same memory",
    ],
    [
      "an unknown gradient",
      () => make(start(), { shapes }).step({ x: new Float32Array(1) }),
      '[route.step] there is no parameter "x". Parameters: up.weight, embed.weight, norm.',
    ],
    [
      "another optimizer's state",
      () => make(start(), { shapes }).loadStateDict(new AdamW(start()).stateDict()),
      "expected the state of route(sonew,adamw)",
    ],
  ])("refuses %s", (_what, act, message) => {
    expect(act).toThrow(message);
  });
});
