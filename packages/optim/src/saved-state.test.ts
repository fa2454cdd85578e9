import { FormatError } from "@llmeff/native";
import { type Tensor, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { optimizers, routed } from "../test/all-optimizers.js";
import {
  Adagrad,
  Adam,
  AdamW,
  NAdamW,
  type Optimizer,
  type OptimizerState,
  type Parameter,
  RMSprop,
  ScheduleFreeAdamW,
  Sonew,
} from "./index.js";

type Floats = Float32Array | Float64Array;
const shapes = { weight: [2, 3], bias: [2] };
type Arrays = Record<string, Float32Array>;
const start = (): Arrays => ({ weight: Float32Array.of(1, 2, 3, 4, 5, 6), bias: Float32Array.of(1, -1) });
const grads = (): Arrays => ({ weight: Float32Array.of(3, -1, 4, 1, -5, 9), bias: Float32Array.of(2, -6) });
const toTensors = (arrays: Arrays): Record<string, Tensor> =>
  Object.fromEntries(Object.entries(arrays).map(([name, x]) => [name, tensor(x, { shape: shapes[name as "bias"] })]));

const isFloats = (x: unknown): x is Floats => x instanceof Float32Array || x instanceof Float64Array;
const valuesOf = (x: Parameter) => (isFloats(x) ? x : x.dataSync()).slice();
const stateOf = ({ tensors, meta }: OptimizerState<Parameter>) => ({
  values: Object.entries(tensors).map(([name, x]) => [name, valuesOf(x)]),
  meta: structuredClone(meta),
});

/** Expects that the state with one array in place of another is refused, and that the optimizer's stays. */
function expectRefusal<P extends Parameter>(optimizer: Optimizer<P>, name: string, array: P, message: string): void {
  const { tensors, meta } = optimizer.stateDict();
  const before = stateOf({ tensors, meta });
  const load = () => optimizer.loadStateDict({ tensors: { ...tensors, [name]: array }, meta });
  expect(load).toThrow(FormatError);
  expect(load).toThrow(message);
  expect(stateOf(optimizer.stateDict())).toEqual(before);
}

const changed = (x: Floats, index: number, value: number): Float32Array => {
  const copy = x.slice();
  copy[index] = value;
  return copy as Float32Array; // or of float64, as it was
};

describe.each([...optimizers, routed])("$name: saved states that aren't finite", ({ make }) => {
  const bad = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];

  it("are refused for any array, by its name and the first index", () => {
    const optimizer = make(start(), { shapes });
    optimizer.step(grads());
    for (const [name, array] of Object.entries(optimizer.stateDict().tensors)) {
      if (!isFloats(array)) continue;
      for (const value of bad) {
        for (const index of new Set([0, array.length - 1])) {
          const message = `received ${value} at index ${index}. Is the file damaged`;
          expectRefusal(optimizer, name, changed(array, index, value), message);
          expectRefusal(optimizer, name, changed(array, index, value), `"${name}" must be finite`);
        }
      }
    }
  });

  it("are refused for any tensor, by its name and the first index", () => {
    const optimizer = make(toTensors(start()));
    optimizer.step(toTensors(grads()));
    for (const [name, array] of Object.entries(optimizer.stateDict().tensors)) {
      const values = array.dataSync();
      if (!isFloats(values)) continue;
      for (const value of bad) {
        const index = values.length - 1;
        const damaged = tensor(changed(values, index, value), { shape: array.shape });
        expectRefusal(optimizer, name, damaged, `"${name}" must be finite`);
        expectRefusal(optimizer, name, damaged, `received ${value} at index ${index}.`);
      }
    }
  });
});

describe("saved states", () => {
  const rules: [string, (p: Record<string, Float64Array>) => Optimizer<Float64Array>, string[], string[]][] = [
    ["Adam", (p) => new Adam(p), ["v"], ["m"]],
    ["AdamW", (p) => new AdamW(p, { amsgrad: true }), ["v", "maxV"], ["m"]],
    ["NAdamW", (p) => new NAdamW(p), ["v"], ["m"]],
    ["RMSprop", (p) => new RMSprop(p, { centered: true, momentum: 0.9 }), ["v"], ["average", "momentum"]],
    ["Adagrad", (p) => new Adagrad(p), ["v"], []],
    ["ScheduleFreeAdamW", (p) => new ScheduleFreeAdamW(p), ["v"], ["z"]],
    ["Sonew", (p) => new Sonew(p, { graft: "rmspropNorm", band: 1 }), ["h0", "rms"], ["m", "h1"]],
  ];

  it.each(rules)(
    "have no negative elements where %s sums squares, and any elsewhere",
    (name, make, squares, others) => {
      const n = 11;
      const optimizer = make({ p: Float64Array.from({ length: n }, (_, i) => i) });
      optimizer.step({ p: Float64Array.from({ length: n }, (_, i) => i - 4.5) });
      const { tensors, meta } = optimizer.stateDict();
      expect(Object.keys(tensors).sort()).toEqual([...squares, ...others].map((key) => `p.${key}`).sort());
      for (const key of squares) {
        for (const index of [0, 5, 10]) {
          const damaged = tensors[`p.${key}`]!.slice();
          damaged.fill(-1e-300, index);
          const message = `[${name}.loadStateDict] "p.${key}" must be finite and not negative; received -1e-300 at index ${index}.`;
          expectRefusal(optimizer, `p.${key}`, damaged, message);
        }
      }
      // All that is allowed, to the ends of the range.
      const { MAX_VALUE } = Number;
      const extremes = [
        ...squares.map((key) => [
          `p.${key}`,
          Float64Array.from({ length: n }, (_, i) => [-0, MAX_VALUE, 5e-324][i % 3]!),
        ]),
        ...others.map((key) => [
          `p.${key}`,
          Float64Array.from({ length: n }, (_, i) => [-MAX_VALUE, MAX_VALUE][i % 2]!),
        ]),
      ];
      const state = Object.fromEntries(extremes);
      optimizer.loadStateDict({ tensors: state, meta });
      expect(optimizer.stateDict().tensors).toEqual(state);
    },
  );

  it("are checked in 16 bits too, and as masters", () => {
    const narrow = (...values: number[]) => tensor(Float32Array.from(values)).astype("bfloat16");
    const p = narrow(1, 2, 3);
    const optimizer = new Sonew({ p }, { stateDtype: "bfloat16" });
    optimizer.step({ p: narrow(1, -2, 3) });
    expectRefusal(optimizer, "p.m", narrow(-1, 2, Number.NaN), '"p.m" must be finite; received NaN at index 2.');
    expectRefusal(optimizer, "p.h1", narrow(0, Number.NEGATIVE_INFINITY, 1), "received -Infinity at index 1.");
    expectRefusal(optimizer, "p.h0", narrow(0, -1, 1), "must be finite and not negative; received -1 at index 1.");
    expectRefusal(
      optimizer,
      "p.master",
      tensor([1, Number.NaN, 3]),
      '"p.master" must be finite; received NaN at index 1.',
    );
  });

  it.each([
    ["steps", -1, "a non-negative integer"],
    ["steps", 1.5, "a non-negative integer"],
    ["lrMax", -0.1, "a finite number of at least 0"],
    ["weightSum", -1, "a finite number of at least 0"],
    ["weightSum", Number.NaN, "a finite number of at least 0"],
    ["training", 0.5, "0 or 1"],
    ["training", -1, "0 or 1"],
  ])("of ScheduleFreeAdamW can't have %s of %d", (key, value, domain) => {
    const optimizer = new ScheduleFreeAdamW({ p: Float64Array.of(1, 2) });
    optimizer.step({ p: Float64Array.of(1, 2) });
    const before = structuredClone(optimizer.stateDict());
    const { tensors, meta } = structuredClone(before);
    const numbers = { ...meta.numbers, [`p.${key}`]: value };
    expect(() => optimizer.loadStateDict({ tensors, meta: { ...meta, numbers } })).toThrow(
      `[ScheduleFreeAdamW.loadStateDict] meta.numbers["p.${key}"] must be ${domain}; received ${value}.`,
    );
    expect(optimizer.stateDict()).toEqual(before);
  });
});
