import { describe, expect, it } from "vitest";
import { grad, maximum, minimum, noGrad, scope, type Tensor, tensor, valueAndGrad } from "../src/index.js";
import { expectClose, largest, sumError, unitRoundoff } from "./compare.js";
import { numbers, sample } from "./numbers.js";
import { type OpCase, opCases } from "./op-cases.js";

const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** Weights that make any result a scalar whose gradient reaches every element differently. */
function weightsFor(shape: readonly number[], dtype: "float32" | "float64"): Tensor {
  return sample(shape, 99, { dtype, low: 0.5, high: 1.5 });
}

function gradientsOf({ compute }: OpCase, inputs: readonly Tensor[]) {
  return valueAndGrad((xs: readonly Tensor[]) => {
    const out = compute(...xs);
    return out.mul(weightsFor(out.shape, out.dtype as "float64")).sum();
  }, inputs);
}

function inputsOf({ inputs, range = [-1, 1], seed = 7 }: OpCase, dtype: "float32" | "float64"): Tensor[] {
  return inputs.map((shape, i) => sample(shape, seed + i, { dtype, low: range[0], high: range[1] }));
}

/**
 * (f(x + h v) − f(x − h v)) / 2h for a random direction v, Richardson-extrapolated with h and h/2: the truncation error is O(h⁴), the
 * rounding error about u · |f| / h.
 */
function directionalDerivative(
  opCase: OpCase,
  inputs: readonly Tensor[],
  directions: readonly Tensor[],
  h: number,
): number {
  const value = (step: number) =>
    scope(() => {
      const moved = inputs.map((x, i) => x.add(directions[i]!.mul(step)));
      const out = noGrad(() => opCase.compute(...moved));
      return out.mul(weightsFor(out.shape, "float64")).sum().itemSync();
    });
  const slope = (step: number) => (value(step) - value(-step)) / (2 * step);
  return (4 * slope(h / 2) - slope(h)) / 3;
}

/**
 * How far that may be from the sum of `products` of gradients and directions. Truncation: fifth derivatives of these functions on these ranges
 * are below 10³. Rounding: the value is a sum of the op's terms, and the extrapolation has three times its error over h.
 */
function differenceTolerance({ terms = 64 }: OpCase, products: readonly Tensor[], h: number): number {
  const scale = 1 + products.reduce((sum, p) => sum + largest(p.dataSync()) * Math.sqrt(p.size), 0);
  return (1e3 * h ** 4 + (3 * sumError(terms, "float64")) / h) * scale;
}

describe("gradients", () => {
  it.each(opCases.map((c) => [c.name, c] as const))("of %s agree with central differences", (_name, opCase) => {
    scope(() => {
      const inputs = inputsOf(opCase, "float64");
      const { grads } = gradientsOf(opCase, inputs);
      const h = 1e-3;
      for (let k = 0; k < 3; k++) {
        // One input moves at a time, then all: a wrong gradient of one can't be hidden by the size of another's.
        for (const which of [...inputs.keys(), -1]) {
          const directions = inputs.map((x, i) =>
            which < 0 || i === which ? sample(x.shape, 1000 + 10 * k + i) : sample(x.shape, 0).mul(0),
          );
          const expected = directionalDerivative(opCase, inputs, directions, h);
          const products = grads.map((g, i) => g.mul(directions[i]!));
          const actual = products.reduce((sum, p) => sum + p.sum().itemSync(), 0);
          expectClose(
            [actual],
            [expected],
            { atol: differenceTolerance(opCase, products, h) },
            `direction ${k} of input ${which}`,
          );
        }
      }
    });
  });

  it.each(opCases.map((c) => [c.name, c] as const))("of %s in float32 agree with float64", (_name, opCase) => {
    scope(() => {
      const wide = gradientsOf(opCase, inputsOf(opCase, "float64"));
      const narrow = gradientsOf(opCase, inputsOf(opCase, "float32"));
      const terms = opCase.terms ?? 64;
      for (const [i, g] of wide.grads.entries()) {
        const expected = g.dataSync();
        expect(narrow.grads[i]!.dtype).toBe("float32");
        // Each element: a few roundings of each of its terms, whose size the largest gradient and the inputs bound.
        const atol = 8 * unitRoundoff.float32 * Math.sqrt(terms) * (4 + largest(expected));
        expectClose(narrow.grads[i]!.dataSync(), expected, { atol }, `gradient ${i}`);
      }
      const count = sizeOf(opCase.inputs[0]!);
      expectClose(
        narrow.value.dataSync(),
        wide.value.dataSync(),
        { atol: 8 * unitRoundoff.float32 * count * terms },
        "value",
      );
    });
  });
});

describe("valueAndGrad", () => {
  it("computes a worked example", () => {
    // f = Σ (w x − y)²: residuals 2·1 − 1 = 1 and 2·3 − 5 = 1; f = 2, df/dw = 2 · (1·1 + 1·3) = 8.
    const x = tensor([1, 3]);
    const y = tensor([1, 5]);
    const { value, grads } = valueAndGrad((w: Tensor) => w.mul(x).sub(y).square().sum(), tensor(2));
    expect(value.itemSync()).toBe(2);
    expect(grads.itemSync()).toBe(8);
  });

  it("adds the gradients of all uses of a parameter", () => {
    const { grads } = valueAndGrad((w: Tensor) => w.mul(w).add(w).add(w.mul(3)).sum(), tensor([2, 5])); // 2w + 4
    expect([...grads.dataSync()]).toEqual([8, 14]);
  });

  it("gives zeros for a parameter that the loss doesn't use", () => {
    const { grads } = valueAndGrad(({ a }: Record<"a" | "b", Tensor>) => a.sum(), {
      a: tensor([1, 2]),
      b: tensor([[3]]),
    });
    expect([...grads.b.dataSync()]).toEqual([0]);
    expect(grads.b.shape).toEqual([1, 1]);
  });

  it("keeps the form of nested parameters", () => {
    const params = { layers: [{ w: tensor([1]) }, { w: tensor([2]) }], head: tensor([3]) };
    const { grads } = valueAndGrad((p: typeof params) => p.layers[0]!.w.mul(p.layers[1]!.w).mul(p.head).sum(), params);
    expect([grads.layers[0]!.w, grads.layers[1]!.w, grads.head].map((g) => g.itemSync())).toEqual([6, 3, 2]);
  });

  it("gives the gradient of bfloat16 parameters, summed in float32 and rounded once for each use", () => {
    const w = tensor([1, 2], { dtype: "bfloat16" });
    const { grads } = valueAndGrad(
      (p: Tensor) =>
        p
          .astype("float32")
          .square()
          .sum()
          .add(p.expand([3, 2]).astype("float32").sum()),
      w,
    );
    expect(grads.dtype).toBe("bfloat16");
    expect([...grads.astype("float32").dataSync()]).toEqual([5, 7]); // 2w + 3
  });

  it("leaves parameters and values of outer scopes alive when the loss returns them", () => {
    const w = tensor(3);
    const constant = tensor(7);
    const first = valueAndGrad((p: Tensor) => p, w);
    expect(first.grads.itemSync()).toBe(1);
    first.value.dispose();
    valueAndGrad(() => constant, w).value.dispose();
    expect([w.itemSync(), constant.itemSync()]).toEqual([3, 7]);
  });

  it("leaves tensors of an enclosing gradient in their tape when an inner loss returns them beside it", () => {
    const slope = grad((p: Tensor) => {
      const h = p.square();
      const { aux } = valueAndGrad((q: Tensor) => ({ loss: q.square(), aux: [h, q] }), tensor(1));
      return aux[0]!.mul(3);
    }, tensor(2));
    expect(slope.itemSync()).toBe(12);
  });

  it("treats noGrad and detach as constants", () => {
    const w = tensor([2, 3]);
    const { grads } = valueAndGrad(
      (p: Tensor) =>
        p
          .mul(noGrad(() => p.square()))
          .add(p.detach())
          .sum(),
      w,
    );
    expect([...grads.dataSync()]).toEqual([4, 9]);
  });

  it("gives the derivatives of ties and of the ends of the domain that it documents", () => {
    const half = valueAndGrad((p: Tensor) => p.slice(0, 0, 1).mul(1).sum().add(p.mul(0).sum()), tensor([1, 1])).grads;
    expect([...half.dataSync()]).toEqual([1, 0]);
    const share = valueAndGrad((p: Tensor) => p.max(), tensor([2, 5, 5])).grads;
    expect([...share.dataSync()]).toEqual([0, 0.5, 0.5]);
    const powers = valueAndGrad((p: Tensor) => p.pow(tensor([0, 1, 2])).sum(), tensor([0, 0, 0])).grads;
    expect([...powers.dataSync()]).toEqual([0, 1, 0]);
    const exponents = valueAndGrad((p: Tensor) => tensor([0, 0, 1]).pow(p).sum(), tensor([0, 2, 3])).grads;
    expect([...exponents.dataSync()]).toEqual([0, 0, 0]);
    const pair = valueAndGrad(
      ([a, b]: Tensor[]) => maximum(a!, b!).add(minimum(a!, b!).mul(2)).sum(),
      [tensor([1, 2]), tensor([1, 3])],
    ).grads;
    expect(pair.map((g) => [...g.dataSync()])).toEqual([
      [1.5, 2],
      [1.5, 1],
    ]);
  });

  it("works for random compositions of views (seeded)", () => {
    for (let seed = 0; seed < 20; seed++) {
      scope(() => {
        const [a, b, c] = numbers(3, seed, 0, 1);
        const compute = (x: Tensor) => {
          let y = a! < 0.5 ? x.permute([2, 0, 1]) : x.transpose();
          y = y.slice(b! < 0.5 ? 0 : -1, 1);
          y = y.reshape([-1]).expand([2, y.size]);
          return (c! < 0.5 ? y.slice(0, 1) : y.T).square();
        };
        const opCase: OpCase = { name: `views ${seed}`, inputs: [[2, 3, 4]], compute: (x) => compute(x!) };
        const inputs = inputsOf(opCase, "float64");
        const { grads } = gradientsOf(opCase, inputs);
        const directions = [sample([2, 3, 4], seed)];
        const h = 1e-3;
        const expected = directionalDerivative(opCase, inputs, directions, h);
        const product = grads[0]!.mul(directions[0]!);
        const atol = differenceTolerance(opCase, [product], h);
        expectClose([product.sum().itemSync()], [expected], { atol }, `seed ${seed}`);
      });
    }
  });
});
