/** What every optimizer refuses, and that nothing is half-changed then. */
import { DisposedError, DTypeError, FormatError, NonFiniteError, OptionError, ShapeError } from "@llmeff/native";
import { type Tensor, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { type Options, optimizers, routed } from "../test/all-optimizers.js";
import type { Optimizer, OptimizerState, Parameter } from "./index.js";

type Arrays = Record<string, Float32Array>;
const start = (): Arrays => ({
  weight: Float32Array.of(1, 2, 3, 4, 5, 6),
  bias: Float32Array.of(1, -1),
  "head.weight": Float32Array.of(0.5, 0.25, -2, 8),
});
const shapes = { weight: [2, 3], "head.weight": [2, 2], bias: [2] };
const gradsAt = (step: number): Arrays =>
  Object.fromEntries(
    Object.entries(start()).map(([name, x]) => [name, x.map((y, i) => Math.sin(y + 3 * i + 7 * step))]),
  );
const toTensors = (arrays: Arrays): Record<string, Tensor> =>
  Object.fromEntries(Object.entries(arrays).map(([name, x]) => [name, tensor(x, { shape: shapes[name as "bias"] })]));

/** All that a step or a load may change. */
function snapshot<P extends Parameter>(params: Record<string, P>, optimizer: Optimizer<P>): unknown {
  const read = (record: Record<string, P>) =>
    Object.entries(record).map(([name, x]) => [
      name,
      "disposed" in x ? !x.disposed && x.dataSync() : x.length > 0 && x.slice(),
    ]);
  const { tensors, meta } = optimizer.stateDict();
  return [read(params), read(tensors), structuredClone(meta), optimizer.learningRate];
}

type ErrorClass = new (message: string) => Error;

/** Gradients that a step refuses, on typed arrays. */
const badGrads: [string, (grads: Arrays) => Record<string, unknown>, ErrorClass, string][] = [
  ["an unknown name", (g) => ({ ...g, other: g.bias }), OptionError, 'there is no parameter "other"'],
  ["another size", (g) => ({ ...g, bias: new Float32Array(3) }), ShapeError, "must have shape [2]; received [3]"],
  ["another dtype", (g) => ({ ...g, bias: new Float64Array(2) }), DTypeError, "received Float64Array"],
  ["a tensor for an array", (g) => ({ ...g, bias: tensor([1, 2]) }), DTypeError, "received float32 tensor"],
  ["no array at all", (g) => ({ ...g, bias: [1, 2] }), DTypeError, "received Array"],
  ["null", (g) => ({ ...g, bias: null }), DTypeError, "received null"],
];

/** The same on tensors. */
const badTensors: [string, (grads: Record<string, Tensor>) => Record<string, unknown>, ErrorClass, string][] = [
  ["another shape of the same size", (g) => ({ ...g, weight: g.weight!.reshape([3, 2]) }), ShapeError, "[2, 3]"],
  ["another rank", (g) => ({ ...g, bias: g.bias!.reshape([1, 2]) }), ShapeError, "received [1, 2]"],
  ["another dtype", (g) => ({ ...g, bias: g.bias!.astype("bfloat16") }), DTypeError, "received bfloat16 tensor"],
  ["integers", (g) => ({ ...g, bias: tensor(new Int32Array(2)) }), DTypeError, "received int32 tensor"],
  [
    "a disposed tensor",
    (g) => {
      g.bias!.dispose();
      return g;
    },
    DisposedError,
    "was disposed",
  ],
];

type Saved = OptimizerState<Float32Array>;
const firstArray = ({ tensors }: Saved) => Object.keys(tensors).find((name) => name.includes("bias"))!;
const without = (record: object, key: string) =>
  Object.fromEntries(Object.entries(record).filter(([name]) => name !== key));

/** States that are refused. */
const badStates: [string, (saved: Saved) => unknown, string][] = [
  ["nothing", () => undefined, "received undefined, format undefined"],
  ["no meta", ({ tensors }) => ({ tensors }), "received undefined, format undefined"],
  ["another format", ({ tensors, meta }) => ({ tensors, meta: { ...meta, format: 2 } }), "format 2"],
  ["another optimizer's", ({ tensors, meta }) => ({ tensors, meta: { ...meta, optimizer: "x" } }), "received x"],
  ["no tensors", ({ meta }) => ({ meta }), 'expected arrays by name in "tensors"; received undefined'],
  ["a missing array", (s) => ({ ...s, tensors: without(s.tensors, firstArray(s)) }), "is missing"],
  [
    "one array too many",
    (s) => ({ ...s, tensors: { ...s.tensors, "x.m": new Float32Array(1) } }),
    "no parameter uses x.m",
  ],
  [
    "an array of another size",
    (s) => ({ ...s, tensors: { ...s.tensors, [firstArray(s)]: new Float32Array(99) } }),
    "received a Float32Array of 99 elements",
  ],
  [
    "an array of another dtype",
    (s) => ({ ...s, tensors: { ...s.tensors, [firstArray(s)]: new Float64Array(2) } }),
    "received a Float64Array of 2 elements",
  ],
  ["no array", (s) => ({ ...s, tensors: { ...s.tensors, [firstArray(s)]: null } }), "received a null"],
  ["a negative step", ({ tensors, meta }) => ({ tensors, meta: { ...meta, stepCount: -1 } }), "meta.stepCount must be"],
  ["no steps", ({ tensors, meta }) => ({ tensors, meta: without(meta, "steps") }), 'meta.steps["'],
  [
    "half a step",
    ({ tensors, meta }) => ({ tensors, meta: { ...meta, steps: { ...meta.steps, bias: 0.5 } } }),
    'meta.steps["bias"] must be a non-negative integer; received 0.5',
  ],
];

describe.each([...optimizers, routed])("$name", ({ make }) => {
  const hasArrays = Object.keys(make(start(), { shapes }).stateDict().tensors).length > 0;

  it.each(badGrads)("refuses gradients: %s", (_what, change, ErrorClass, message) => {
    const params = start();
    const optimizer = make(params, { shapes, maxGradNorm: 1 });
    optimizer.step(gradsAt(0));
    const before = snapshot(params, optimizer);
    expect(() => optimizer.step(change(gradsAt(1)) as Arrays)).toThrow(ErrorClass);
    expect(() => optimizer.step(change(gradsAt(1)) as Arrays)).toThrow(message);
    expect(snapshot(params, optimizer)).toEqual(before);
  });

  it.each(badTensors)("refuses gradients on tensors: %s", (_what, change, ErrorClass, message) => {
    const params = toTensors(start());
    const optimizer = make(params, { maxGradNorm: 1 });
    optimizer.step(toTensors(gradsAt(0)));
    const before = snapshot(params, optimizer);
    expect(() => optimizer.step(change(toTensors(gradsAt(1))) as never)).toThrow(ErrorClass);
    expect(() => optimizer.step(change(toTensors(gradsAt(1))) as never)).toThrow(message);
    expect(snapshot(params, optimizer)).toEqual(before);
  });

  it.each(badStates.filter(([what]) => hasArrays || !what.includes("array")))(
    "refuses a saved state: %s",
    (_what, change, message) => {
      const [params, other] = [start(), start()];
      const [optimizer, saver] = [make(params, { shapes }), make(other, { shapes })];
      optimizer.step(gradsAt(0));
      for (let step = 0; step < 3; step++) saver.step(gradsAt(step));
      const before = snapshot(params, optimizer);
      const load = () => optimizer.loadStateDict(change(saver.stateDict()) as Saved);
      expect(load).toThrow(FormatError);
      expect(load).toThrow(message);
      expect(snapshot(params, optimizer)).toEqual(before);
    },
  );

  if (hasArrays) {
    it("refuses a saved state whose arrays have another shape, or were disposed", () => {
      const [params, other] = [toTensors(start()), toTensors(start())];
      const [optimizer, saver] = [make(params), make(other)];
      saver.step(toTensors(gradsAt(0)));
      const before = snapshot(params, optimizer);
      const { tensors, meta } = saver.stateDict();
      const name = Object.keys(tensors).find((key) => tensors[key]!.rank === 2)!;
      const transposed = { ...tensors, [name]: tensors[name]!.reshape([tensors[name]!.size]) };
      expect(() => optimizer.loadStateDict({ tensors: transposed, meta })).toThrow(
        `"${name}" must be a float32 tensor of`,
      );
      Object.values(tensors).at(-1)!.dispose();
      expect(() => optimizer.loadStateDict({ tensors, meta })).toThrow("was disposed");
      expect(snapshot(params, optimizer)).toEqual(before);
    });
  }

  it.each([-1, Number.NaN, Number.POSITIVE_INFINITY])("refuses a learning rate of %d", (learningRate) => {
    expect(() => make(start(), { shapes, learningRate })).toThrow("learningRate must be");
    const params = start();
    const optimizer = make(params, { shapes });
    expect(() => {
      optimizer.learningRate = learningRate;
    }).toThrow("learningRate must be a schedule or a number of at least 0");
    optimizer.learningRate = (step) => (step === 0 ? 0.1 : learningRate);
    optimizer.step(gradsAt(0));
    const state = structuredClone([params, optimizer.stateDict()]);
    expect(() => optimizer.step(gradsAt(1))).toThrow(`[step 1] learningRate must be`);
    expect([params, optimizer.stateDict()]).toEqual(state);
  });

  it.each<[unknown, string]>([
    [undefined, "undefined"],
    [null, "null"],
    [3, "3"],
    [tensor([1]), "float32 tensor"],
    [new Float32Array(2), "Float32Array"],
    [new Map(), "Map"],
  ])("refuses %s for parameters, gradients and options", (value, received) => {
    expect(() => make(value as never, { shapes })).toThrow(OptionError);
    expect(() => make(value as never, { shapes })).toThrow(
      `expected parameters by name, { weight: … }; received ${received}.`,
    );
    const params = start();
    const optimizer = make(params, { shapes });
    const before = snapshot(params, optimizer);
    expect(() => optimizer.step(value as never)).toThrow(OptionError);
    expect(() => optimizer.step(value as never)).toThrow(
      `.step] expected gradients by name, { weight: … }; received ${received}.`,
    );
    const remove = optimizer.hooks.beforeStep(() => (value ?? 0) as never);
    expect(() => optimizer.step(gradsAt(0))).toThrow("[beforeStep] expected gradients by name");
    remove();
    for (const options of [null, 3, [], { gradnorm: 1 }]) {
      expect(() => optimizer.step(gradsAt(0), options as never)).toThrow(OptionError);
      expect(() => optimizer.step(gradsAt(0), options as never)).toThrow(/\.step\] (options must be|unknown option)/);
    }
    expect(snapshot(params, optimizer)).toEqual(before);
  });

  it("refuses one memory under two names, and mixed kinds", () => {
    const { weight, bias } = start();
    expect(() => make({ weight: weight!, again: weight! })).toThrow("are the same memory");
    const shared = tensor(weight!);
    expect(() => make({ weight: shared, again: shared.detach() })).toThrow(
      'parameters "weight" and "again" are the same memory',
    );
    expect(() => make({ bias: bias!, wide: new Float64Array(2) } as never)).toThrow("must be of one kind");
    expect(() => make({})).toThrow("expected at least one parameter");
    expect(() => make({ bias: new Int32Array(2) } as never)).toThrow("must be a Tensor, Float32Array or Float64Array");
  });

  it("refuses parameters whose buffers were transferred or resized", () => {
    const params = start();
    const optimizer = make(params, { shapes });
    structuredClone(params.bias, { transfer: [params.bias!.buffer as ArrayBuffer] });
    const before = snapshot(params, optimizer);
    expect(() => optimizer.step(gradsAt(0))).toThrow(
      'parameter "bias" had 2 elements when the optimizer was made and now has 0',
    );
    expect(snapshot(params, optimizer)).toEqual(before);
  });

  it("throws for gradients of typed arrays that are not finite, at once and before anything changed", () => {
    for (const bad of [Number.NaN, Number.NEGATIVE_INFINITY]) {
      const params = start();
      const optimizer = make(params, { shapes, nonFinite: "throw" });
      optimizer.step(gradsAt(0));
      const before = snapshot(params, optimizer);
      const grads = gradsAt(1);
      grads.bias![0] = bad;
      expect(() => optimizer.step(grads)).toThrow(NonFiniteError);
      expect(() => optimizer.step(grads)).toThrow("at step 1, which changed nothing");
      expect(snapshot(params, optimizer)).toEqual(before);
      optimizer.step(gradsAt(1));
      expect(optimizer.stepCount).toBe(2);
    }
  });

  it("throws later for gradients of tensors that are not finite, which change nothing", async () => {
    const params = toTensors(start());
    const optimizer = make(params, { nonFinite: "throw" });
    optimizer.step(toTensors(gradsAt(0)));
    await optimizer.settled();
    const values = () => Object.values(params).map((x) => Array.from(x.dataSync()));
    const before = values();
    const bad = { ...gradsAt(1), bias: Float32Array.of(Number.NaN, 1) };
    optimizer.step(toTensors(bad));
    expect(values()).toEqual(before);
    await expect(optimizer.settled()).rejects.toThrow(NonFiniteError);
    await optimizer.settled(); // told once
    optimizer.step(toTensors(bad));
    await optimizer.gradNorm(); // read after the check's own
    expect(() => optimizer.step(toTensors(gradsAt(2)))).toThrow("at step 2, which changed nothing");
    expect(values()).toEqual(before);
    optimizer.step(toTensors(gradsAt(2)));
    expect(values()).not.toEqual(before);
  });

  it("skips gradients that are not finite when that is chosen", async () => {
    const params = start();
    const optimizer = make(params, { shapes, nonFinite: "skip" });
    optimizer.step(gradsAt(0));
    const before = structuredClone([params, optimizer.stateDict().tensors]);
    optimizer.step({ ...gradsAt(1), bias: Float32Array.of(Number.NaN, 1) });
    expect([params, optimizer.stateDict().tensors]).toEqual(before);
    await optimizer.settled();
    expect(await optimizer.gradNorm()).toBeNaN();
  });

  it("refuses options that it doesn't have, and guards outside their domain", () => {
    const refused: [Options, string][] = [
      [{ shapes, maxGradNorm: 0 }, "maxGradNorm must be a positive number; received 0."],
      [{ shapes, maxGradNorm: Number.NaN }, "maxGradNorm must be a positive number; received NaN."],
      [{ shapes, nonFinite: "ignore" as never }, 'nonFinite must be one of "skip", "throw"; received "ignore".'],
      [{ shapes, learningrate: 1 }, 'unknown option "learningrate"'],
      [
        { shapes: { ...shapes, biass: [2] } },
        'shapes["biass"] is for no parameter. Parameters: weight, bias, head.weight.',
      ],
      [{ shapes: [[2, 3]] as never }, "shapes must be an object of shapes by parameter; received [an array]."],
    ];
    for (const [options, message] of refused) expect(() => make(start(), options)).toThrow(message);
  });

  it.each<[unknown, string]>([
    [[3], 'shapes["bias"] is [3] but the array has 2 elements'],
    [[-1, -2], 'shapes["bias"] must be an array of non-negative integers; received [-1, -2].'],
    [[1.5, 4 / 3], "must be an array of non-negative integers; received [1.5, 1.3333333333333333]."],
    [["1", "2"], 'must be an array of non-negative integers; received ["1", "2"].'],
    [[Number.NaN], "must be an array of non-negative integers; received [NaN]."],
    [Int32Array.of(2), "must be an array of non-negative integers; received an object of Int32Array."],
    [2, "must be an array of non-negative integers; received 2."],
    [null, "must be an array of non-negative integers; received null."],
  ])("refuses a shape that no array has: %j", (bias, message) => {
    const act = () => make(start(), { shapes: { ...shapes, bias: bias as never } });
    expect(act).toThrow(ShapeError);
    expect(act).toThrow(message);
  });

  it("steps and saves parameters under names that every object inherits", () => {
    const run = (names: Record<string, string>) => {
      const renamed = <T>(record: Record<string, T>): Record<string, T> =>
        Object.fromEntries(Object.entries(record).map(([name, x]) => [names[name]!, x]));
      const [params, others] = [renamed(start()), renamed(start())];
      const [optimizer, other] = [params, others].map((p) => make(p, { shapes: renamed<number[]>(shapes) }));
      optimizer!.step(renamed(gradsAt(0)));
      const { tensors, meta } = optimizer!.stateDict();
      other!.loadStateDict({ tensors, meta: JSON.parse(JSON.stringify(meta)) });
      other!.step(renamed(gradsAt(1)));
      return [params, others, other!.stateDict().tensors].map((record) => Object.values(record));
    };
    const inherited = { weight: "constructor", bias: "__proto__", "head.weight": "head.toString" };
    expect(run(inherited)).toEqual(run({ weight: "a", bias: "b", "head.weight": "head.c" }));
  });

  it("fails a step whose hook throws, before anything changed", () => {
    const params = start();
    const optimizer = make(params, { shapes });
    const before = snapshot(params, optimizer);
    const remove = optimizer.hooks.beforeStep(() => {
      throw new Error("not now");
    });
    expect(() => optimizer.step(gradsAt(0))).toThrow("not now");
    remove();
    optimizer.hooks.beforeStep((async () => {}) as never);
    expect(() => optimizer.step(gradsAt(0))).toThrow("received one that returns a Promise");
    expect(snapshot(params, optimizer)).toEqual(before);
  });
});

describe.each(optimizers)("$name: hyper-parameters", ({ make, refused }) => {
  // Those of a single option, whose message names it.
  const outside = refused.flatMap((options) => {
    const entries = Object.entries(options);
    return entries.length === 1 ? [{ name: entries[0]![0], value: entries[0]![1] }] : [];
  });

  it("are refused outside their domains: for all, for a group, and when changed later", () => {
    expect(outside).not.toEqual([]);
    for (const { name, value } of outside) {
      const label = `${name} = ${String(value)}`;
      expect(() => make(start(), { shapes, [name]: value }), label).toThrow(`${name} must be`);
      const groups = [{ params: ["bias"], [name]: value }];
      expect(() => make(start(), { shapes, groups }), label).toThrow(`[groups[0]] ${name} must be`);
      const params = start();
      const optimizer = make(params, { shapes });
      (optimizer.paramGroups[0] as unknown as Record<string, unknown>)[name] = value;
      expect(() => optimizer.step(gradsAt(0)), label).toThrow(`[paramGroups[0]] ${name} must be`);
      expect([params, optimizer.stepCount]).toEqual([start(), 0]);
    }
  });

  it("are refused for groups that name what there isn't", () => {
    const refused: [Options["groups"], string][] = [
      [[{ params: ["wieght"] }], '[groups[0]] there is no parameter "wieght". Parameters: weight, bias, head.weight.'],
      [[{ params: /bias/, lr: 1 } as never], 'unknown option "lr"'],
      [[{ params: 3 as never }], "params must be a RegExp, a list of names or a function; received 3."],
      [null as never, "groups must be an array; received null."],
      [/bias/ as never, "groups must be an array; received an object of RegExp."],
      [[null as never], "[groups[0]] options must be an object; received null."],
      [[{ params: null as never }], "params must be a RegExp, a list of names or a function; received null."],
      [[{ params: /bias/, frozen: 1 as never }], "frozen must be true or false; received 1."],
    ];
    for (const [groups, message] of refused) expect(() => make(start(), { shapes, groups: groups! })).toThrow(message);
    expect(() => make(start(), { decay: "some" as never })).toThrow('decay must be "all", "matrices" or a filter');
  });
});
