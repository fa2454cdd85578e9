import { engine, UnaryOp } from "@llmeff/native";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { expectClose, expectSameBits, unitRoundoff } from "../../test/compare.js";
import { numbers, sample } from "../../test/numbers.js";
import * as t from "../index.js";

/** Operations to be called by name. */
const byName = { ...t };

/** e^(−x²) Σ …: the series of erf near 0, the continued fraction of erfc beyond. */
function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2) return 1 - erf(x);
  let fraction = 0;
  for (let k = 200; k > 0; k--) fraction = k / 2 / (x + fraction);
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / (x + fraction);
}
function erf(x: number): number {
  if (Math.abs(x) >= 2) return Math.sign(x) * (1 - erfc(Math.abs(x)));
  let sum = x;
  for (let k = 1, term = x; k < 60; k++) {
    term *= (-x * x) / k;
    sum += term / (2 * k + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}
const logistic = (x: number) => (x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x)));
const halfToEven = (x: number) => {
  const nearest = Math.round(x);
  return nearest - x === 0.5 && nearest % 2 !== 0 ? nearest - 1 : nearest;
};

/** Units in the last place that a float32 result may be off, over all float32 arguments; on a GPU where CUDA's own functions promise less. */
const functions: Record<string, [reference: (x: number) => number, ulps: number, onGpu?: number]> = {
  neg: [(x) => -x, 0],
  abs: [Math.abs, 0],
  sign: [Math.sign, 0],
  floor: [Math.floor, 0],
  ceil: [Math.ceil, 0],
  round: [halfToEven, 0],
  trunc: [Math.trunc, 0],
  relu: [(x) => Math.max(x, 0), 0],
  square: [(x) => x * x, 0.5],
  sqrt: [Math.sqrt, 0.5],
  reciprocal: [(x) => 1 / x, 0.5],
  rsqrt: [(x) => 1 / Math.sqrt(x), 1.5],
  exp: [Math.exp, 1, 2],
  expm1: [Math.expm1, 2],
  log: [Math.log, 1],
  log1p: [Math.log1p, 2],
  sin: [Math.sin, 2],
  cos: [Math.cos, 2],
  tan: [Math.tan, 2, 4],
  asin: [Math.asin, 2],
  acos: [Math.acos, 2],
  atan: [Math.atan, 2],
  sinh: [Math.sinh, 2, 3],
  cosh: [Math.cosh, 2],
  tanh: [Math.tanh, 2],
  erf: [erf, 2],
  sigmoid: [logistic, 3],
  softplus: [(x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), 2],
};

/** float32 numbers of all exponents and both signs, evenly over their bits, and the edges. */
function denseSample(count: number): Float32Array {
  const edges = [0, -0, 1, -1, 0.5, 1.5, 2.5, -2.5, Infinity, -Infinity, NaN, 2 ** -149, -(2 ** -126), 3.4028234e38];
  const bits = new Uint32Array(count);
  for (let i = 0; i < count; i++) bits[i] = Math.floor(((i + 0.5) / count) * 2 ** 32);
  const values = new Float32Array(bits.buffer);
  values.set(edges);
  return values;
}

/** The distance of neighbouring float32 numbers at a value. */
function ulp(value: number): number {
  return 2 ** (Math.max(Math.floor(Math.log2(Math.abs(value))), -126) - 23) || 2 ** -149;
}

describe("functions of one number", () => {
  const x = denseSample(100_003);
  it.each(Object.entries(functions))(
    "%s is right to its stated units in the last place",
    (name, [reference, onCpu, onGpu = onCpu]) => {
      const ulps = t.defaultDevice() === "cpu" ? onCpu : onGpu;
      const y = t.scope(() => byName[name as "exp"](t.tensor(x)).dataSync());
      for (let i = 0; i < x.length; i++) {
        const exact = reference(x[i]!);
        const rounded = Math.fround(exact);
        if (Object.is(y[i], rounded)) continue;
        // Either side of the largest number counts as its neighbour.
        const finite = Math.min(Math.max(exact, -(2 ** 128)), 2 ** 128);
        const received = Math.min(Math.max(y[i]!, -(2 ** 128)), 2 ** 128);
        const error = Math.abs(received - finite) / ulp(exact);
        if (!(error <= ulps)) expect.fail(`${name}(${x[i]}) is ${y[i]}, expected ${exact}: ${error} ulp`);
      }
    },
  );

  it.each(Object.entries(functions))("%s in float64 agrees with Math", (name, [reference]) => {
    const values = numbers(1001, 3, -4, 4);
    const y = t.scope(() => byName[name as "exp"](t.tensor(values)).dataSync());
    const atol = name === "erf" ? 8 * unitRoundoff.float64 : 0; // the reference's own cancellation
    expectClose(y, values.map(reference), { rtol: 32 * unitRoundoff.float64, atol }, name);
  });

  it("gelu and silu keep their relative accuracy in the lower tail, where 1 + erf would cancel", () => {
    const values = numbers(20_000, 4, -12, 6);
    const y = t.scope(() => t.gelu(t.tensor(values, { dtype: "float32" }), { approximate: "none" }).dataSync());
    for (let i = 0; i < values.length; i++) {
      const exact = (values[i]! * erfc(-values[i]! / Math.SQRT2)) / 2;
      const error = Math.abs(y[i]! - exact) / ulp(exact);
      if (!(error <= 6)) expect.fail(`gelu(${values[i]}) is ${y[i]}, expected ${exact}: ${error} ulp`);
    }
    const s = t.scope(() => t.silu(t.tensor(values, { dtype: "float32" })).dataSync());
    for (let i = 0; i < values.length; i++) {
      const exact = values[i]! * logistic(values[i]!);
      expect(Math.abs(s[i]! - exact) / ulp(exact), `silu(${values[i]})`).toBeLessThan(4);
    }
    // The exponent's rounding, about |2u| · 2^-24, is what the tanh form cannot avoid.
    const z = t.scope(() => t.gelu(t.tensor(values, { dtype: "float32" })).dataSync());
    for (let i = 0; i < values.length; i++) {
      const v = values[i]!;
      const u = 2 * Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3);
      expectClose([z[i]!], [v * logistic(u)], { rtol: unitRoundoff.float32 * (8 + 4 * Math.abs(u)), atol: 2 ** -126 });
    }
  });

  it("gives the slopes of infinite arguments", () => {
    const x = t.tensor([-Infinity, Infinity]);
    const slope = (fn: (x: t.Tensor) => t.Tensor) => [...t.grad((p: t.Tensor) => fn(p).sum(), x).dataSync()];
    expect(slope(t.sigmoid)).toEqual([0, 0]);
    expect(slope(t.tanh)).toEqual([0, 0]);
    expect(slope(t.softplus)).toEqual([0, 1]);
    expect(slope((p) => t.where(t.isFinite(p), p, t.silu(p).mul(0)))).toEqual([0, 0]);
    expect(slope(t.abs)).toEqual([-1, 1]);
  });

  it("doesn't depend on the layout", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 70 }), fc.integer({ min: 1, max: 40 }), (rows, columns) => {
        t.scope(() => {
          const x = sample([rows, columns], rows, { dtype: "float32", low: -40_000, high: 40_000 });
          for (const name of ["sin", "tanh", "erf"] as const) {
            expectSameBits(byName[name](x.T).T.clone().dataSync(), byName[name](x).dataSync(), name);
          }
        });
      }),
      { numRuns: 30 },
    );
  });

  it("computes on 16-bit numbers in float32 and rounds once", () => {
    for (const dtype of ["bfloat16", "float16"] as const) {
      t.scope(() => {
        const x = sample([37, 19], 5, { dtype, low: -3, high: 3 });
        const expected = t.silu(x.astype("float32")).astype(dtype);
        expectSameBits(t.silu(x).dataSync(), expected.dataSync(), dtype);
        expectSameBits(t.silu(x.T).T.clone().dataSync(), expected.dataSync(), `${dtype} transposed`);
        const y = x.T.reshape([19, 37]);
        expectSameBits(
          t.add(x.T, y).dataSync(),
          t.add(x.T.astype("float32"), y.astype("float32")).astype(dtype).dataSync(),
          `sum of ${dtype}`,
        );
      });
    }
  });

  it("tells what is not a number", () => {
    const x = t.tensor([0, NaN, Infinity, -1]);
    expect([...t.isNaN(x).dataSync()]).toEqual([0, 1, 0, 0]);
    expect([...t.isFinite(x).dataSync()]).toEqual([1, 0, 0, 1]);
    expect([...t.logicalNot(t.isNaN(x)).dataSync()]).toEqual([1, 0, 1, 1]);
  });

  it("works on empty arrays", () => {
    expect(t.exp(t.zeros([0, 3])).shape).toEqual([0, 3]);
    expect(t.atan2(t.zeros([0, 3]), t.zeros([3])).shape).toEqual([0, 3]);
  });

  it("refuses gradients of what has none, at the kernel", () => {
    const x = new Float32Array(4);
    expect(() => engine().op.unaryGrad(UnaryOp.floor, x, x, x)).toThrow(/no gradient/);
  });
});

describe("functions of two numbers", () => {
  const special = [0, -0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 2.5, -2.5, 1e-40, 3e38, Infinity, -Infinity, NaN];
  const pairs = special.flatMap((a) => special.map((b) => [Math.fround(a), Math.fround(b)] as const));

  it("pow agrees with Math.pow at all the edges, and to 1 unit in the last place elsewhere", () => {
    const next = numbers(40_000, 6, 0, 1);
    const a = [
      ...pairs.map(([x]) => x),
      ...Array.from(next.subarray(0, 20_000), (u) => Math.fround(2 ** (40 * u - 20))),
    ];
    const b = [...pairs.map(([, y]) => y), ...Array.from(next.subarray(20_000), (u) => Math.fround(8 * u - 4))];
    const y = t.pow(t.tensor(a), t.tensor(b)).dataSync();
    for (let i = 0; i < a.length; i++) {
      const one = Math.abs(a[i]!) === 1 && Math.abs(b[i]!) === Infinity; // 1 by IEEE 754, NaN in JavaScript
      const exact = one || a[i] === 1 ? 1 : a[i]! ** b[i]!;
      if (Object.is(y[i], Math.fround(exact))) continue;
      expect(Math.abs(y[i]! - exact) / ulp(exact), `${a[i]} ** ${b[i]} is ${y[i]}, expected ${exact}`).toBeLessThan(1);
    }
  });

  it("remainder has the sign of the divisor, as in Python", () => {
    // Python: [7 % 3, -7 % 3, 7 % -3, -7 % -3]
    const a = [7, -7, 7, -7];
    const b = [3, 3, -3, -3];
    expect([...t.remainder(t.tensor(a), t.tensor(b)).dataSync()]).toEqual([1, 2, -2, -1]);
    expect([...t.floorDivide(t.tensor(a), t.tensor(b)).dataSync()]).toEqual([2, -3, -3, 2]);
    const int = (values: number[]) => t.tensor(Int32Array.from(values));
    expect([...t.remainder(int([...a, 5]), int([...b, 0])).dataSync()]).toEqual([1, 2, -2, -1, 0]);
    expect([...t.floorDivide(int(a), int(b)).dataSync()]).toEqual([2, -3, -3, 2]);
  });

  it("remainder stays in [0, b) and differs from a by a multiple of b", () => {
    fc.assert(
      fc.property(fc.integer({ min: -(2 ** 20), max: 2 ** 20 }), fc.integer({ min: 1, max: 1000 }), (a, b) => {
        const r = t.remainder(t.tensor([a]), b).itemSync();
        expect(r).toBe(((a % b) + b) % b);
      }),
    );
  });

  it("atan2 and logAddExp agree with plain loops", () => {
    const a = pairs.map(([x]) => x);
    const b = pairs.map(([, y]) => y);
    expectClose(
      t.atan2(t.tensor(a), t.tensor(b)).dataSync(),
      a.map((x, i) => Math.atan2(x, b[i]!)),
      {
        rtol: 4 * unitRoundoff.float32,
        atol: 2 ** -149, // the distance of the smallest numbers
      },
    );
    const lae = (x: number, y: number) =>
      x === y ? x + Math.LN2 : Math.max(x, y) + Math.log1p(Math.exp(-Math.abs(x - y)));
    expectClose(
      t.logAddExp(t.tensor(a), t.tensor(b)).dataSync(),
      a.map((x, i) => lae(x, b[i]!)),
      {
        rtol: 4 * unitRoundoff.float32,
      },
    );
  });

  it("logic agrees with its truth table", () => {
    const a = t.equal(t.tensor([0, 0, 1, 1]), 1);
    const b = t.equal(t.tensor([0, 1, 0, 1]), 1);
    expect([...t.logicalAnd(a, b).dataSync()]).toEqual([0, 0, 0, 1]);
    expect([...t.logicalOr(a, b).dataSync()]).toEqual([0, 1, 1, 1]);
    expect([...t.logicalXor(a, b).dataSync()]).toEqual([0, 1, 1, 0]);
  });

  it("clip keeps NaN and what lies between the bounds, and passes the gradient at them", () => {
    const x = t.tensor([-3, -1, 0.5, 2, 3, NaN]);
    expect([...t.clip(x, -1, 2).dataSync()]).toEqual([-1, -1, 0.5, 2, 2, NaN]);
    const dx = t.grad((p: t.Tensor) => t.clip(p, -1, 2).sum(), t.tensor([-3, -1, 0.5, 2, 3]));
    expect([...dx.dataSync()]).toEqual([0, 1, 1, 1, 0]);
  });

  it("activations agree with their formulas", () => {
    const v = Float32Array.of(-100, -2, 0, 3);
    const close = (y: t.Tensor, f: (x: number) => number) =>
      expectClose(y.dataSync(), Array.from(v, f), { rtol: 4 * unitRoundoff.float32 });
    close(t.leakyRelu(t.tensor(v)), (x) => (x > 0 ? x : 0.01 * x));
    close(t.elu(t.tensor(v), 2), (x) => (x > 0 ? x : 2 * Math.expm1(x)));
    close(t.logSigmoid(t.tensor(v)), (x) => -Math.log1p(Math.exp(-x)));
    expect(t.grad((p: t.Tensor) => t.elu(p).sum(), t.tensor(1000)).itemSync()).toBe(1);
  });
});

describe("where", () => {
  it("takes a number for either side, in the dtype of the other", () => {
    const mask = t.tensor([1, 0], { dtype: "bool" });
    expect(t.where(mask, t.tensor(Int32Array.of(4, 5)), 0)).toMatchObject({ dtype: "int32", shape: [2] });
    expect([...t.where(mask, t.tensor([4, 5]), -Infinity).dataSync()]).toEqual([4, -Infinity]);
    expect([...t.where(mask, 0.5, t.tensor([[4], [5]])).dataSync()]).toEqual([0.5, 4, 0.5, 5]);
    const slope = t.grad((p: t.Tensor) => t.where(mask, p, 7).sum(), t.tensor([2, 3]));
    expect([...slope.dataSync()]).toEqual([1, 0]);
    expect(() => t.where(mask, 1, 0)).toThrow("[where] a must be a Tensor");
  });
});
