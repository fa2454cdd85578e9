import { DTypeError, type Tensor, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import {
  AdamW,
  adamw,
  allOf,
  anyOf,
  embeddings,
  matrices,
  not,
  optimizerOf,
  type ParameterFilter,
  route,
  SGD,
  Sonew,
  vectors,
  warmup,
} from "./index.js";

const f32 = (...values: number[]) => Float32Array.from(values);
const zeros = (n: number) => new Float32Array(n);

describe("filters of parameters", () => {
  const shapes: Record<string, number[]> = {
    "model.embed_tokens.weight": [8, 2],
    "model.layers.0.attn.weight": [2, 2],
    "model.layers.0.norm.weight": [2],
    "wpe.weight": [4, 2],
    "lm_head.weight": [8, 2],
    "blocks.0.headwise.weight": [2, 2],
  };
  it.each<[string, ParameterFilter, string[]]>([
    ["embeddings", embeddings, ["model.embed_tokens.weight", "wpe.weight", "lm_head.weight"]],
    ["vectors", vectors, ["model.layers.0.norm.weight"]],
    ["hidden matrices", allOf(matrices, not(embeddings)), ["model.layers.0.attn.weight", "blocks.0.headwise.weight"]],
    ["any of two", anyOf(/norm/, ["wpe.weight"]), ["model.layers.0.norm.weight", "wpe.weight"]],
  ])("%s", (_name, filter, expected) => {
    const params = Object.fromEntries(Object.entries(shapes).map(([name, [a, b = 1]]) => [name, zeros(a! * b)]));
    const { paramGroups } = new AdamW(params, { shapes, groups: [{ params: filter }] });
    expect(paramGroups[0]!.params).toEqual(expected);
  });

  it("say which parameters decay", () => {
    const params = { "embed.weight": f32(1, 1), "up.weight": f32(1, 1), bias: f32(1, 1) };
    const optimizer = new AdamW(params, {
      decay: allOf(matrices, not(embeddings)),
      shapes: { "embed.weight": [1, 2], "up.weight": [1, 2] },
      learningRate: 0.5,
      weightDecay: 1,
    });
    optimizer.step({ "embed.weight": zeros(2), "up.weight": zeros(2), bias: zeros(2) });
    expect(params).toEqual({ "embed.weight": f32(1, 1), "up.weight": f32(0.5, 0.5), bias: f32(1, 1) });
    expect(optimizer.stateDict().meta.hyper!.decay).toEqual(["up.weight"]);
  });
});

describe("frozen groups", () => {
  it("are never stepped, keep no state, and don't count for the norm", async () => {
    const params = { embed: f32(1, 2), head: f32(3) };
    const optimizer = new AdamW(params, { groups: [{ params: ["embed"], frozen: true }], maxGradNorm: 1e9 });
    optimizer.step({ embed: f32(30, 40), head: f32(5) });
    expect(params.embed).toEqual(f32(1, 2));
    expect(params.head[0]).not.toBe(3);
    expect(optimizer.stateBytes()).toBe(8);
    expect(await optimizer.gradNorm()).toBe(5);
    expect(optimizer.paramGroups.map(({ frozen }) => frozen)).toEqual([true, undefined]);
    expect(optimizer.stateDict().meta.hyper!.groups[0]).toMatchObject({ params: ["embed"], frozen: true });
    optimizer.step({ embed: f32(1, 1) });
    expect(optimizer.stepCount).toBe(2);
  });
});

describe("addParamGroup", () => {
  it("asks the list of what decays about those that join, too", () => {
    const [body, head] = [f32(1), f32(1)];
    const optimizer = new SGD({ body }, { learningRate: 0.5, weightDecay: 0.5, decay: ["body"] });
    optimizer.addParamGroup({ params: { head } });
    optimizer.step({ body: zeros(1), head: zeros(1) });
    expect([...body, ...head]).toEqual([0.75, 1]);
  });

  it("adds parameters whose steps count from then on, with the schedule of the others", () => {
    const params = { body: f32(1) };
    const head = f32(1);
    const optimizer = new AdamW(params, { learningRate: (step) => 10 ** -step, weightDecay: 0 });
    optimizer.step({ body: f32(1) });
    optimizer.addParamGroup({ params: { head }, beta2: 0.5 });
    expect(optimizer.paramGroups.map((group) => [group.params, group.beta2])).toEqual([
      [["body"], 0.999],
      [["head"], 0.5],
    ]);
    optimizer.step({ body: f32(1), head: f32(1) });
    expect(head[0]).toBeCloseTo(0.9, 6); // a first step of Adam's is as long as the rate, 0.1 now
    expect(optimizer.stateDict().meta.steps).toEqual({ body: 2, head: 1 });
    optimizer.learningRate = 1;
    expect(optimizer.paramGroups[1]!.learningRate).toBe(1);
  });

  it("continues bit by bit from a state saved after it", () => {
    const make = () => {
      const params = { body: f32(1), head: f32(2) };
      const optimizer = optimizerOf({ body: params.body }, ({ learningRate }) => adamw(learningRate), {
        learningRate: warmup(0.1, 3),
      });
      optimizer.addParamGroup({ params: { head: params.head }, learningRate: 0.5 });
      return { params, optimizer };
    };
    const [straight, resumed] = [make(), make()];
    const grads = (step: number) => ({ body: f32(Math.sin(step)), head: f32(Math.cos(step)) });
    for (let step = 0; step < 3; step++) straight.optimizer.step(grads(step));
    for (const [name, x] of Object.entries(straight.params)) resumed.params[name as "body"].set(x);
    resumed.optimizer.loadStateDict(structuredClone(straight.optimizer.stateDict()));
    for (const { optimizer } of [straight, resumed]) optimizer.step(grads(3));
    expect(resumed.params).toEqual(straight.params);
    expect(resumed.optimizer.stateDict()).toEqual(straight.optimizer.stateDict());
  });

  it("takes gradients of 16-bit parameters as wide as their masters, all of them or none", () => {
    const params = { a: tensor([1, 2]).astype("bfloat16"), b: tensor([3, 4]).astype("bfloat16") };
    const wide = tensor([0.1, 0.3]);
    const narrow = wide.astype("bfloat16");
    const makers = [
      () => new AdamW<Tensor>(params, { learningRate: 0.1 }),
      () =>
        route<Tensor>(params, [{ params: ["a"], optimizer: (p) => new AdamW(p) }, { optimizer: (p) => new SGD(p) }], {
          learningRate: 0.1,
          maxGradNorm: 1,
        }),
    ];
    for (const make of makers) {
      const optimizer = make();
      const before = Object.values(params).map((p) => p.dataSync());
      const mixed = () => optimizer.step({ a: wide, b: narrow });
      expect(mixed).toThrow(DTypeError);
      expect(mixed).toThrow('that of "a" is a float32 tensor, that of "b" a bfloat16 tensor');
      expect(() => optimizer.step({ a: wide.astype("float64") })).toThrow(
        'the gradient of "a" must be a bfloat16 tensor or a float32 tensor; received float64 tensor',
      );
      expect(Object.values(params).map((p) => p.dataSync())).toEqual(before);
      optimizer.step({ a: wide, b: wide });
      expect(Object.values(params).map((p) => p.dataSync())).not.toEqual(before);
    }
  });

  it("takes frozen groups and masters", () => {
    const body = tensor([1, 2]).astype("bfloat16");
    const [head, table] = [tensor([3]).astype("bfloat16"), tensor([4]).astype("bfloat16")];
    const optimizer = new AdamW<Tensor>({ body });
    optimizer.addParamGroup({ params: { table }, frozen: true });
    optimizer.addParamGroup({ params: { head } });
    expect(optimizer.stateBytes()).toBe(4 * 3 * 3);
  });

  it("refuses what the constructor refuses, and changes nothing", () => {
    const body = f32(1, 2);
    const optimizer = new AdamW({ body });
    const refused: [() => void, string][] = [
      [
        () => optimizer.addParamGroup({ params: { body: f32(1) } }),
        '[AdamW.addParamGroup] there is a parameter "body" already',
      ],
      [() => optimizer.addParamGroup({ params: { again: body.subarray(1) } }), "are the same memory"],
      [() => optimizer.addParamGroup({ params: { other: f32(1) }, beta1: 1 }), "[groups[0]] beta1 must be"],
      [() => optimizer.addParamGroup({ params: { other: f32(1) }, lr: 1 } as never), 'unknown option "lr"'],
      [() => optimizer.addParamGroup({ params: { empty: f32() } }), '"empty" is empty'],
      [() => optimizer.addParamGroup(null as never), "[AdamW.addParamGroup] options must be an object; received null."],
      [() => optimizer.addParamGroup({} as never), "[AdamW.addParamGroup] expected parameters by name"],
      [
        () => optimizer.addParamGroup({ params: { other: f32(1) }, shapes: { other: [-1, -1] } }),
        '[AdamW.addParamGroup] shapes["other"] must be an array of non-negative integers; received [-1, -1].',
      ],
      [
        () => optimizer.addParamGroup({ params: { other: f32(1) }, shapes: { body: [2] } }),
        '[AdamW.addParamGroup] shapes["body"] is for no parameter. Parameters: other.',
      ],
      [() => optimizer.addParamGroup({ params: { wide: new Float64Array(1) } } as never), "must be of one kind"],
    ];
    for (const [add, message] of refused) expect(add).toThrow(message);
    expect(optimizer.paramGroups).toHaveLength(1);
    expect(Object.keys(optimizer.stateDict().tensors)).toEqual(["body.m", "body.v"]);
  });

  it("adds nothing if the state of one of the parameters can't be made", () => {
    const optimizer = new Sonew({ body: f32(1, 2) }, { vectors: "adam" });
    const [vector, matrix] = [f32(1), f32(1)];
    const add = () =>
      optimizer.addParamGroup({ params: { vector, matrix }, shapes: { matrix: [1, 1] }, stateDtype: "bfloat16" });
    expect(add).toThrow("there is no typed array of bfloat16");
    expect(optimizer.paramGroups).toHaveLength(1);
    expect(Object.keys(optimizer.params)).toEqual(["body"]);
    expect(Object.keys(optimizer.stateDict().meta.steps)).toEqual(["body"]);
  });
});

describe("hooks", () => {
  it("are functions", () => {
    const { hooks } = new AdamW({ p: f32(0) });
    expect(() => hooks.beforeStep(null as never)).toThrow("[hooks] a hook must be a function; received null.");
    expect(() => hooks.afterStep({} as never)).toThrow(
      "[hooks] a hook must be a function; received an object of Object.",
    );
  });

  it("see and replace gradients before the step, and run after it, in their order", () => {
    const params = { p: f32(0) };
    const optimizer = new AdamW(params, { learningRate: 1 });
    const seen: string[] = [];
    optimizer.hooks.beforeStep((grads) => {
      seen.push(`first ${grads.p![0]}`);
      return { p: f32(7) };
    });
    const remove = optimizer.hooks.beforeStep((grads) => {
      seen.push(`second ${grads.p![0]}`);
    });
    optimizer.hooks.afterStep(() => seen.push(`after ${optimizer.stepCount}`));
    optimizer.step({ p: f32(1) });
    remove();
    remove();
    optimizer.step({ p: f32(2) });
    expect(seen).toEqual(["first 1", "second 7", "after 1", "first 2", "after 2"]);
    expect(optimizer.stateDict().tensors["p.m"]![0]).toBeCloseTo(0.1 * 7 + 0.9 * 0.7, 5);
  });
});
