import { DTypeError, FormatError, OptionError, ShapeError } from "@llmeff/native";
import { type Tensor, tensor, zeros } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { AdamW, Sonew, vectors, warmup } from "./index.js";

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

/** Every fused optimizer, on typed arrays and on tensors: one line each. */
const kinds = [
  ["AdamW", (p: Params, options: object) => new AdamW(p, options)],
  ["AdamW with amsgrad", (p: Params, options: object) => new AdamW(p, { amsgrad: true, ...options })],
  ["Sonew", (p: Params, options: object) => new Sonew(p, { eps: 1e-4, ...options })],
  ["Sonew rmspropNorm", (p: Params, options: object) => new Sonew(p, { graft: "rmspropNorm", eps: 1e-4, ...options })],
  [
    "Sonew of band 4, edges dropped on both sides",
    (p: Params, options: object) => new Sonew(p, { band: 4, drop: "isolate", gamma: 0.2, eps: 1e-4, ...options }),
  ],
  ["diagonal Sonew", (p: Params, options: object) => new Sonew(p, { band: 0, eps: 1e-4, ...options })],
  [
    "Sonew col, rows, vectors by Adam",
    (p: Params, options: object) =>
      new Sonew(p, { order: "col", chain: "row", vectors: "adam", eps: 1e-4, ...options }),
  ],
] as const;

describe.each(kinds)("%s", (_name, make) => {
  it("gives the same bits on tensors of the CPU as on typed arrays", () => {
    const arrays = params();
    const onArrays = make(arrays, { shapes, maxGradNorm: 0.5, learningRate: 0.1 });
    const toTensors = (p: Params) =>
      Object.fromEntries(
        Object.entries(p).map(([name, x]) => [
          name,
          tensor(x, { shape: shapes[name as "weight"] ?? [x.length], device: "cpu" }),
        ]),
      );
    const tensors = toTensors(params());
    const onTensors = make(tensors as never, { maxGradNorm: 0.5, learningRate: 0.1 });
    for (let step = 0; step < 5; step++) {
      onArrays.step(gradsAt(step));
      onTensors.step(toTensors(gradsAt(step)) as never);
    }
    for (const [name, values] of Object.entries(arrays)) expect(tensors[name]!.dataSync()).toEqual(values);
  });

  it.each(["bfloat16", "float16"] as const)(
    "steps float32 masters of %s parameters, which are their roundings",
    (dtype) => {
      const narrowed = (p: Params) =>
        Object.fromEntries(
          Object.entries(p).map(([name, x]) => [
            name,
            tensor(x, { shape: shapes[name as "weight"] ?? [x.length] }).astype(dtype),
          ]),
        );
      const narrow = narrowed(params());
      const wide = Object.fromEntries(Object.entries(narrow).map(([name, x]) => [name, x.astype("float32")]));
      const options = { maxGradNorm: 0.5, learningRate: 0.01 };
      const [onNarrow, onWide] = [make(narrow as never, options), make(wide as never, options)];
      for (let step = 0; step < 5; step++) {
        const grads = narrowed(gradsAt(step));
        onNarrow.step(grads as never);
        onWide.step(Object.fromEntries(Object.entries(grads).map(([name, g]) => [name, g.astype("float32")])) as never);
      }
      const masters = onNarrow.stateDict().tensors as unknown as Record<string, Tensor>;
      for (const [name, x] of Object.entries(wide)) {
        expect(masters[`${name}.master`]!.dataSync()).toEqual(x.dataSync());
        expect(narrow[name]!.dataSync()).toEqual(x.astype(dtype).dataSync());
      }
    },
  );

  it("continues from its saved state bit by bit", () => {
    const options = { shapes, maxGradNorm: 1, learningRate: warmup(0.1, 7) };
    const straight = params();
    const uninterrupted = make(straight, options);
    for (let step = 0; step < 8; step++) uninterrupted.step(gradsAt(step));

    const resumed = params();
    const first = make(resumed, options);
    for (let step = 0; step < 4; step++) first.step(gradsAt(step));
    const { tensors, meta } = first.stateDict();
    const saved = {
      tensors: Object.fromEntries(Object.entries(tensors).map(([name, x]) => [name, x.slice()])),
      meta: JSON.parse(JSON.stringify(meta)),
    };
    const second = make(resumed, options);
    second.loadStateDict(saved);
    expect(second.stepCount).toBe(4);
    expect(second.learningRate).toBe(uninterruptedRate(4));
    for (let step = 4; step < 8; step++) second.step(gradsAt(step));
    expect(resumed).toEqual(straight);
    expect(second.stateDict()).toEqual(uninterrupted.stateDict());

    function uninterruptedRate(step: number): number {
      return warmup(0.1, 7)(step);
    }
  });

  it("changes nothing in a step whose gradients are not finite, and counts it", async () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const p = params();
      const optimizer = make(p, { shapes, maxGradNorm: Number.POSITIVE_INFINITY });
      optimizer.step(gradsAt(0));
      const before = structuredClone({ p, state: optimizer.stateDict().tensors });
      const grads = gradsAt(1);
      grads.bias![1] = bad;
      optimizer.step(grads);
      expect({ p, state: optimizer.stateDict().tensors }).toEqual(before);
      expect(optimizer.stepCount).toBe(2);
      expect(await optimizer.gradNorm()).toBe(bad);
    }
  });

  it("changes nothing at all in a step that fails because something was disposed", () => {
    for (const broken of ["parameter", "gradient", "state"]) {
      const tensors = Object.fromEntries(Object.entries(params()).map(([name, x]) => [name, tensor(x)]));
      const grads = Object.fromEntries(Object.entries(gradsAt(0)).map(([name, x]) => [name, tensor(x)]));
      // Two groups, so that one kernel could run before the other fails.
      const options = { groups: [{ params: ["table"], weightDecay: 0.5 }], maxGradNorm: 1 };
      const optimizer = make(tensors as never, options);
      const state = optimizer.stateDict().tensors as unknown as Record<string, Tensor>;
      const values = (record: Record<string, Tensor>) =>
        Object.entries(record).flatMap(([name, x]) => (x.disposed ? [] : [[name, Array.from(x.dataSync())]]));
      const victim = { parameter: tensors.table!, gradient: grads.table!, state: state["table.m"]! }[broken]!;
      victim.dispose();
      const before = [values(tensors), values(state)];
      expect(() => optimizer.step(grads as never), broken).toThrow("disposed");
      expect([values(tensors), values(state)], broken).toEqual(before);
      expect(optimizer.stateDict().meta, broken).toMatchObject({
        stepCount: 0,
        steps: { weight: 0, bias: 0, table: 0 },
      });
    }
  });

  it("refuses a step on arrays whose buffers are gone or resized, and changes nothing", () => {
    const detach = (x: Float32Array) => structuredClone(x, { transfer: [x.buffer as ArrayBuffer] });
    for (const broken of ["parameter", "gradient", "state", "parameter and gradient"]) {
      const p = params();
      const grads = gradsAt(0);
      const optimizer = make(p, { shapes });
      if (broken.includes("parameter")) detach(p.bias!);
      if (broken.includes("gradient")) detach(grads.bias!);
      if (broken === "state") detach(optimizer.stateDict().tensors["bias.m"]!);
      const values = () => Object.values(p).map((x) => (x.length === 0 ? [] : Array.from(x)));
      const before = values();
      expect(() => optimizer.step(grads), broken).toThrow(ShapeError);
      expect(values(), broken).toEqual(before);
      expect(optimizer.stateDict().meta.steps, broken).toEqual({ weight: 0, bias: 0, table: 0 });
    }
    // Resizable buffers are newer than the library that these types describe.
    type Resizable = ArrayBuffer & { resize(bytes: number): void };
    const buffer: Resizable = Reflect.construct(ArrayBuffer, [8, { maxByteLength: 16 }]);
    const growing = new Float32Array(buffer);
    const optimizer = make({ growing }, {});
    buffer.resize(16);
    expect(() => optimizer.step({ growing: new Float32Array(4) })).toThrow(
      /parameter "growing" had 2 elements when the optimizer was made and now has 4/,
    );
  });

  it("tells its hyper-parameters as JSON, but for learning rates", () => {
    const groups = [{ params: ["bias"], weightDecay: 0, learningRate: 3 }];
    const options = {
      shapes: { ...shapes, bias: [2] },
      groups,
      decay: "matrices",
      maxGradNorm: Number.POSITIVE_INFINITY,
    };
    const { hyper } = make(params(), { ...options, learningRate: warmup(1, 3), beta2: 0.9 }).stateDict().meta;
    expect(hyper).toMatchObject({ decay: "matrices", maxGradNorm: "Infinity" });
    expect(hyper!.groups).toMatchObject([
      { params: ["bias"], weightDecay: 0, beta2: 0.9 },
      { params: ["weight", "table"], beta2: 0.9 },
    ]);
    expect(hyper!.groups.some((group) => "learningRate" in group)).toBe(false);
    expect(JSON.parse(JSON.stringify(hyper))).toEqual(hyper);
    expect(make(params(), {}).stateDict().meta.hyper).not.toHaveProperty("maxGradNorm");
  });

  it("treats parameters one by one as it treats them together", () => {
    const together = params();
    const all = make(together, { shapes });
    const alone = params();
    const each = Object.keys(alone).map((name) => ({
      name,
      optimizer: make(
        { [name]: alone[name]! },
        { shapes: name in shapes ? { [name]: shapes[name as keyof typeof shapes] } : {} },
      ),
    }));
    for (let step = 0; step < 3; step++) {
      const grads = gradsAt(step);
      all.step(grads);
      for (const { name, optimizer } of each) optimizer.step({ [name]: grads[name]! });
    }
    expect(alone).toEqual(together);
  });
});

describe("fused optimizers", () => {
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

  const ok = Float32Array.of(1);
  const both = tensor([1]);
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
      '"a.m" must be a Float32Array of 1 elements; received a Float32Array of 2.',
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
