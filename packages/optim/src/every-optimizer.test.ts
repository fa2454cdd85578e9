/** What every optimizer must do, on typed arrays and tensors. */
import { OptionError, ShapeError } from "@llmeff/native";
import { defaultDevice, memory, ones, type Tensor, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { everyOptimizer } from "../test/optimizer-table.js";
import { applyUpdates, linear, warmup } from "./index.js";

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

describe.each(everyOptimizer)("$name", ({ name, make, transform, rate, refused, decays }) => {
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
        const same = Object.fromEntries(Object.entries(grads).map(([name, g]) => [name, g.astype("float32")]));
        // Gradients may be as wide as the masters.
        onNarrow.step((step % 2 === 0 ? grads : same) as never);
        onWide.step(same as never);
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
    const stateless = Object.keys(make(params(), { shapes }).stateDict().tensors).length === 0;
    for (const broken of ["parameter", "gradient", ...(stateless ? [] : ["state"])]) {
      const tensors = Object.fromEntries(Object.entries(params()).map(([name, x]) => [name, tensor(x)]));
      const grads = Object.fromEntries(Object.entries(gradsAt(0)).map(([name, x]) => [name, tensor(x)]));
      // Two groups, so that one kernel could run before the other fails.
      const options = { groups: [{ params: ["table"], weightDecay: 0.5 }], maxGradNorm: 1 };
      const optimizer = make(tensors as never, options);
      const state = optimizer.stateDict().tensors as unknown as Record<string, Tensor>;
      const values = (record: Record<string, Tensor>) =>
        Object.entries(record).flatMap(([name, x]) => (x.disposed ? [] : [[name, Array.from(x.dataSync())]]));
      const [first] = Object.entries(state).filter(([name]) => name.startsWith("table."));
      const victim = { parameter: tensors.table, gradient: grads.table, state: first?.[1] }[broken]!;
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
    const stateless = Object.keys(make(params(), { shapes }).stateDict().tensors).length === 0;
    for (const broken of ["parameter", "gradient", "parameter and gradient", ...(stateless ? [] : ["state"])]) {
      const p = params();
      const grads = gradsAt(0);
      const optimizer = make(p, { shapes });
      if (broken.includes("parameter")) detach(p.bias!);
      if (broken.includes("gradient")) detach(grads.bias!);
      const state = Object.entries(optimizer.stateDict().tensors).find(([name]) => name.startsWith("bias."));
      if (broken === "state") detach(state![1]);
      const values = () => Object.values(p).map((x) => (x.length === 0 ? [] : Array.from(x)));
      const before = values();
      expect(() => optimizer.step(grads), broken).toThrow(ShapeError);
      expect(values(), broken).toEqual(before);
      expect(optimizer.stateDict().meta.steps, broken).toEqual({ weight: 0, bias: 0, table: 0 });
    }
    // Resizable buffers are newer than the library that these types describe.
    const buffer: ArrayBuffer = Reflect.construct(ArrayBuffer, [8, { maxByteLength: 16 }]);
    const growing = new Float32Array(buffer);
    const optimizer = make({ growing }, {});
    Reflect.get(buffer, "resize").call(buffer, 16);
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
    const { hyper } = make(params(), { ...options, learningRate: warmup(1, 3), weightDecay: 0.25 }).stateDict().meta;
    expect(hyper).toMatchObject({ decay: "matrices", maxGradNorm: "Infinity" });
    expect(hyper!.groups).toMatchObject([
      { params: ["bias"], weightDecay: 0 },
      { params: ["weight", "table"], weightDecay: 0.25 },
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

  it("finds the minimum of a quadratic", () => {
    // f = Σ (i + 1)·(p_i − 1)² / 2 over a matrix and a vector
    const p = { matrix: Float64Array.of(3, -2, 0.5, 2), vector: Float64Array.of(-1, 4) };
    const steps = 400;
    const optimizer = make(p, { shapes: { matrix: [2, 2] }, learningRate: linear(rate, steps), weightDecay: 0 });
    const gradient = (x: Float64Array) => x.map((value, i) => (i + 1) * (value - 1));
    const loss = (x: Float64Array) => x.reduce((sum, value, i) => sum + ((i + 1) * (value - 1) ** 2) / 2, 0);
    const before = loss(p.matrix) + loss(p.vector);
    for (let step = 0; step < steps; step++) {
      optimizer.step({ matrix: gradient(p.matrix), vector: gradient(p.vector) });
    }
    expect(loss(p.matrix) + loss(p.vector)).toBeLessThan(1e-2 * before);
  });

  it("follows Rosenbrock's valley", () => {
    const p = Float64Array.of(-0.5, 0.5);
    const loss = ([x, y]: Float64Array) => (1 - x!) ** 2 + 100 * (y! - x! ** 2) ** 2;
    const steps = 1000;
    const optimizer = make({ p }, { learningRate: linear(rate / 20, steps), maxGradNorm: 2, weightDecay: 0 });
    const before = loss(p);
    for (let step = 0; step < steps; step++) {
      const [x, y] = p as unknown as [number, number];
      const slope = 200 * (y - x ** 2);
      optimizer.step({ p: Float64Array.of(-2 * (1 - x) - 2 * x * slope, slope) });
    }
    expect(loss(p)).toBeLessThan(0.5 * before);
  });

  it("steps as its transform does, to rounding", () => {
    const start = Float64Array.from({ length: 77 }, (_, i) => Math.cos(i));
    const gradAt = (step: number) =>
      Float64Array.from({ length: 77 }, (_, i) => Math.sin(i * i + step) * (1 + (i % 3)));
    const [matrix, vector] = [start.slice(), start.slice()];
    const optimizer = make({ matrix, vector }, { shapes: { matrix: [7, 11] }, learningRate: rate / 5 });
    const tx = transform!(rate / 5);
    // Typed arrays are stepped on the CPU. A matrix of rank 7 leaves SOAP the choice of four of its eleven axes, which devices make differently.
    const device = name === "Soap" ? "cpu" : defaultDevice();
    const tree = (x: Float64Array) => ({
      matrix: tensor(x, { shape: [7, 11], device }),
      vector: tensor(x, { device }),
    });
    let p = tree(start);
    let state = tx.init(p);
    for (let step = 0; step < 20; step++) {
      optimizer.step({ matrix: gradAt(step), vector: gradAt(step) });
      const result = tx.update(tree(gradAt(step)), state, p);
      p = applyUpdates(p, result.updates);
      state = result.state;
    }
    const largest = (result: Tensor, b: Float64Array) => {
      const a = result.dataSync();
      return b.reduce((most, x, i) => Math.max(most, Math.abs(x - a[i]!)), 0);
    };
    expect(largest(p.matrix, matrix)).toBeLessThan(1e-11);
    expect(largest(p.vector, vector)).toBeLessThan(1e-11);
  });

  it("moves nothing but by decay when all gradients are 0", () => {
    for (const weightDecay of [0, 0.5]) {
      const p = params();
      const optimizer = make(p, { shapes, learningRate: 1e-3, weightDecay });
      for (let step = 0; step < 2; step++) {
        optimizer.step(Object.fromEntries(Object.entries(p).map(([name, x]) => [name, new Float32Array(x.length)])));
      }
      for (const [name, before] of Object.entries(params())) {
        const isStill = weightDecay === 0 || (decays === "matrices" && !(name in shapes));
        for (const [i, x] of before.entries()) {
          const moved = Math.abs(p[name]![i]!);
          if (isStill) expect(moved).toBe(Math.abs(x));
          else expect(moved).toBeLessThan(Math.abs(x));
        }
      }
    }
  });

  it("gives a group its own hyper-parameters, and leaves parameters without a gradient alone", () => {
    const p = params();
    const optimizer = make(p, {
      shapes,
      learningRate: 0.1,
      groups: [{ params: ["table"], learningRate: 0, weightDecay: 0 }],
    });
    for (let step = 0; step < 2; step++) {
      const { bias: _, ...grads } = gradsAt(step);
      optimizer.step(grads);
    }
    expect(p.table).toEqual(params().table);
    expect(p.bias).toEqual(params().bias);
    for (const [i, x] of params().weight!.entries()) expect(p.weight![i]).not.toBe(x);
    expect(optimizer.stateDict().meta.steps).toEqual({ weight: 2, bias: 0, table: 2 });
  });

  it("keeps its memory use from step to step and frees it", () => {
    const before = memory().tensors;
    const p = { weight: tensor(params().weight!, { shape: [2, 3] }), bias: tensor(params().bias!) };
    const grads = { weight: ones([2, 3]), bias: ones([2]) };
    const optimizer = make(p, { maxGradNorm: 1 });
    optimizer.step(grads);
    const after = memory().tensors;
    for (let step = 0; step < 3; step++) optimizer.step(grads);
    expect(memory().tensors).toBe(after);
    expect(optimizer.stateBytes()).toBe(
      Object.values(optimizer.stateDict().tensors).reduce((bytes, x) => bytes + 4 * x.size, 0),
    );
    for (const x of [optimizer, ...Object.values(p), ...Object.values(grads)]) x.dispose();
    expect(memory().tensors).toBe(before);
  });

  it("refuses hyper-parameters outside their domain, when made and when changed", () => {
    const bad = [...refused, { learningRate: -1 }, { learningRate: Number.NaN }, { learningrate: 1 }];
    for (const options of bad) {
      const what = JSON.stringify(options);
      expect(() => make(params(), { shapes, ...options }), what).toThrow(OptionError);
      expect(() => make(params(), { shapes, groups: [{ params: /bias/, ...options }] }), what).toThrow(OptionError);
      if ("learningrate" in options) continue;
      const p = params();
      const optimizer = make(p, { shapes });
      Object.assign(optimizer.paramGroups[0]!, options);
      expect(() => optimizer.step(gradsAt(0)), what).toThrow(OptionError);
      expect(p).toEqual(params());
    }
    for (const { learningRate, ...options } of bad as { learningRate?: number }[]) {
      expect(() => transform!(learningRate ?? 0.1, options), JSON.stringify(options)).toThrow(OptionError);
    }
  });
});
