import { describe, expect, expectTypeOf, it } from "vitest";
import {
  customGrad,
  grad,
  memory,
  noGrad,
  OptionError,
  ones,
  ShapeError,
  scope,
  type Tensor,
  tensor,
  valueAndGrad,
} from "./index.js";

const values = (x: Tensor) => [...x.dataSync()];

describe("customGrad", () => {
  const quantize = customGrad(
    (x: Tensor) => x.astype("int32").astype("float32"),
    (dy) => [dy],
  );

  it("takes the gradient that it is given instead of that of the operations", () => {
    const { value, grads } = valueAndGrad((p: Tensor) => quantize(p).square().sum(), tensor([1.5, -2.5]));
    expect(value.itemSync()).toBe(1 + 4);
    expect(values(grads)).toEqual([2, -4]); // 2 · quantize(p), straight through
  });

  it("gives backward the arguments and the result", () => {
    const expStable = customGrad(
      (x: Tensor, scale: number) => x.mul(scale).exp(),
      (dy, { args: [x, scale], result }) => {
        expect([values(x), scale]).toEqual([[0, 1], 2]);
        return [dy.mul(result).mul(scale), null];
      },
    );
    const slope = grad((p: Tensor) => expStable(p, 2).sum(), tensor([0, 1]));
    expect(values(slope)).toEqual([2, Math.fround(2 * Math.fround(Math.exp(2)))]);
    expectTypeOf(expStable).toEqualTypeOf<(x: Tensor, scale: number) => Tensor>();
  });

  it("takes and gives trees", () => {
    type Layer = { w: Tensor; b: Tensor | undefined; name: string };
    const layer = customGrad(
      (x: Tensor, { w, name }: Layer) => ({ out: x.mul(w), parts: [x.add(w), tensor(Int32Array.of(7))], name }),
      (gradient, { args: [x, { w }] }) => {
        expect(gradient.name).toBe("first");
        expect(gradient.parts[1]).toBe(null);
        expectTypeOf(gradient.out).toEqualTypeOf<Tensor | null>();
        const { out, parts } = gradient;
        const dx = out && parts[0] ? out.mul(w).add(parts[0]) : null;
        return [dx, { w: out ? out.mul(x) : null, b: null, name: null }];
      },
    );
    const params = { x: tensor([2]), w: tensor([5]) };
    const seen: string[] = [];
    const grads = grad(({ x, w }: typeof params) => {
      const { out, parts, name } = layer(x, { w, b: undefined, name: "first" });
      seen.push(name, parts[1]!.dtype);
      return out.add(parts[0]!.mul(10)).sum();
    }, params);
    expect(seen).toEqual(["first", "int32"]);
    expect([grads.x.itemSync(), grads.w.itemSync()]).toEqual([5 + 10, 2]);
  });

  it("stops the gradient of a branch that is null", () => {
    const stop = customGrad(
      (tree: { a: Tensor; b: Tensor[] }) => tree.a.add(tree.b[0]!),
      () => [null],
    );
    const slope = grad(
      (p: Tensor) =>
        stop({ a: p, b: [p] })
          .add(p)
          .sum(),
      tensor([1]),
    );
    expect(slope.itemSync()).toBe(1);
  });

  it("treats what fn closes over as constants, and itself as one in noGrad", () => {
    const slope = grad(
      (p: Tensor) => {
        const times = customGrad(
          (x: Tensor) => x.mul(p),
          (dy) => [dy.mul(100)],
        );
        return times(p.mul(1))
          .add(noGrad(() => quantize(p)))
          .sum();
      },
      tensor([3]),
    );
    expect(slope.itemSync()).toBe(100);
  });

  it("makes a constant of an argument that it returns in noGrad", () => {
    const same = customGrad(
      (x: Tensor) => [x],
      ([dy]) => [dy!],
    );
    const slope = grad(
      (p: Tensor) =>
        noGrad(() => same(p))[0]!
          .mul(p)
          .sum(),
      tensor([3]),
    );
    expect(slope.itemSync()).toBe(3);
  });

  it("holds the arguments and the result while they are needed, and nothing more", () => {
    const square = customGrad(
      (x: Tensor) => scope(() => x.mul(1).square()),
      (dy, { args: [x] }) => [dy.mul(x.mul(2))],
    );
    const w = tensor([3]);
    const before = memory();
    const slope = grad((p: Tensor) => {
      using x = p.mul(1);
      using y = square(x);
      return y.sum();
    }, w);
    expect(slope.itemSync()).toBe(6);
    slope.dispose();
    const plain = square(w);
    expect(memory().tensors).toBe(before.tensors + 1);
    plain.dispose();
    expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
  });

  const wrong: [string, unknown, new (m: string) => Error, string][] = [
    ["no array", (dy: Tensor) => dy, OptionError, "[twice] expected backward to return an array"],
    ["nothing", () => undefined, OptionError, "received undefined for tensor 1"],
    ["too few", () => [], OptionError, "received undefined for tensor 1"],
    ["a number", () => [2], OptionError, "received number for tensor 1"],
    ["another shape", () => [ones([5])], ShapeError, "[twice] backward returned a gradient of float32 [5]"],
  ];
  it.each(wrong)("must not return %s", (_name, backward, ErrorClass, message) => {
    const twice = customGrad(
      function twice(x: Tensor) {
        return x.mul(2);
      },
      backward as () => [null],
    );
    const call = () => grad((p: Tensor) => twice(p).sum(), ones([2]));
    expect(call).toThrow(ErrorClass);
    expect(call).toThrow(message);
  });

  it("refuses an asynchronous function and arguments that are disposed", () => {
    const late = customGrad(
      async (x: Tensor) => x,
      () => [null],
    );
    expect(() => late(ones([1]))).toThrow("Promise");
    const gone = ones([1]);
    gone.dispose();
    expect(() => quantize(gone)).toThrow("disposed");
  });
});
