import { describe, expect, expectTypeOf, it } from "vitest";
import {
  add,
  defineOp,
  expand,
  grad,
  memory,
  noGrad,
  ones,
  ShapeError,
  type Tensor,
  tensor,
  valueAndGrad,
} from "./index.js";

const values = (x: Tensor) => [...x.dataSync()];

/** `(a · b, a², the position of the larger)`; counts what backward receives. */
function products(received: (Tensor | null)[][] = []) {
  return defineOp<undefined, readonly [Tensor, Tensor, Tensor]>({
    name: "products",
    forward(context, [a, b]) {
      context.save(a!, b!);
      return [a!.mul(b!), a!.square(), tensor(Int32Array.of(a!.sub(b!).dataSync()[0]! >= 0 ? 0 : 1))];
    },
    backward({ saved: [a, b], needs }, [dproduct, dsquare, dposition]) {
      received.push([dproduct, dsquare, dposition]);
      const ofProduct = dproduct?.mul(b!) ?? null;
      const ofSquare = dsquare?.mul(a!.mul(2)) ?? null;
      const da = ofProduct && ofSquare ? ofProduct.add(ofSquare) : (ofProduct ?? ofSquare);
      return [da, needs[1] ? (dproduct?.mul(a!) ?? null) : null];
    },
  });
}

describe("defineOp with several results", () => {
  it("receives their gradients in order, null where none arrived", () => {
    const received: (Tensor | null)[][] = [];
    const op = products(received);
    const params = { a: tensor([3]), b: tensor([5]) };
    // d/da (a b + 2 a²) = b + 4 a = 17, d/db = a = 3.
    const both = grad(({ a, b }: typeof params) => {
      const [product, square, position] = op([a, b], undefined);
      expect(position.dtype).toBe("int32");
      return product.add(square.mul(2)).sum();
    }, params);
    expect([values(both.a), values(both.b)]).toEqual([[17], [3]]);
    const first = grad(({ a, b }: typeof params) => op([a, b], undefined)[0].sum(), params);
    expect([values(first.a), values(first.b)]).toEqual([[5], [3]]);
    const second = grad(({ a, b }: typeof params) => op([a, b], undefined)[1].sum(), params);
    expect([values(second.a), values(second.b)]).toEqual([[6], [0]]);
    expect(received.map((douts) => douts.map((d) => d !== null))).toEqual([
      [true, true, false],
      [true, false, false],
      [false, true, false],
    ]);
  });

  it("is not asked when none of them matters to the loss", () => {
    const received: (Tensor | null)[][] = [];
    const op = products(received);
    const a = tensor([3]);
    const { grads } = valueAndGrad((p: Tensor) => {
      const [, , position] = op([p, p], undefined);
      return position.astype("float32").add(p).sum();
    }, a);
    expect(values(grads)).toEqual([1]);
    expect(received).toEqual([]);
  });

  it("gives results of integers as constants", () => {
    const op = products();
    const { grads } = valueAndGrad((p: Tensor) => op([p, p], undefined)[2].astype("float32").mul(p).sum(), tensor([3]));
    expect(values(grads)).toEqual([0]);
  });

  it("keeps what it saved when inputs and results are disposed, and then frees it", () => {
    const op = products();
    const a = tensor([3]);
    const before = memory();
    const { value, grads } = valueAndGrad((p: Tensor) => {
      const x = p.mul(1);
      const [product, square, position] = op([x, x], undefined);
      const total = product.add(square);
      for (const t of [x, product, square, position]) t.dispose();
      return total.sum();
    }, a);
    expect([value.itemSync(), grads.itemSync()]).toEqual([18, 12]);
    expect(memory().tensors).toBe(before.tensors + 2);
    value.dispose();
    grads.dispose();
    expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
  });

  it("isn't recorded when none of them can have a gradient", () => {
    const op = defineOp<undefined, readonly Tensor[]>({
      name: "compare",
      forward: (context, [x]) => {
        context.save(x!);
        return [x!.astype("int32"), x!.astype("bool")];
      },
      backward: () => [null],
    });
    grad(
      (p: Tensor) => {
        const before = memory().tensors;
        op([p], undefined);
        expect(memory().tensors).toBe(before + 2); // nothing is saved
        return p.sum();
      },
      tensor([3]),
    );
  });

  it("holds only its results outside of a gradient", () => {
    const op = products();
    const a = tensor([3]);
    const before = memory().tensors;
    const results = op([a, a], undefined);
    expect(memory().tensors).toBe(before + 3);
    for (const t of results) t.dispose();
    expect(memory().tensors).toBe(before);
  });

  it("gives each result a gradient of its own when it returns its input or one tensor twice", () => {
    const twice = defineOp<undefined, readonly Tensor[]>({
      name: "twice",
      forward: (_context, [x]) => {
        const y = x!.mul(2);
        return [x!, y, y];
      },
      backward: (_context, douts) => {
        const [a, b, c] = douts.map((d) => d?.itemSync() ?? 0);
        return [tensor(a! + 2 * b! + 2 * c!)];
      },
    });
    const slope = grad((p: Tensor) => {
      const [a, b, c] = twice([p], undefined);
      return a!.mul(10).add(b!.mul(100)).add(c!.mul(1000)).add(p);
    }, tensor(1));
    expect(slope.itemSync()).toBe(10 + 200 + 2000 + 1);
  });

  it("frees its saved tensors and results when its gradient fails", () => {
    const failing = defineOp<undefined, readonly [Tensor, Tensor]>({
      name: "failing",
      forward: (context, [x]) => {
        context.save(x!.exp());
        return [x!.mul(2), x!.mul(3)];
      },
      backward: () => {
        throw new TypeError("mine");
      },
    });
    const w = ones([4]);
    const before = memory();
    expect(() => grad((p: Tensor) => add(...failing([p], undefined)).sum(), w)).toThrow("mine");
    expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
  });

  it("treats results without elements as without a gradient", () => {
    const received: (Tensor | null)[][] = [];
    const halves = defineOp<number, readonly [Tensor, Tensor]>({
      name: "halves",
      forward: (_context, [x], at) => [x!.slice(0, 0, at), x!.slice(0, at)],
      backward: ({ shapes: [shape] }, [left, right]) => {
        received.push([left, right]);
        return [(right ?? left)!.reshape(shape!)];
      },
    });
    const slope = grad(
      (p: Tensor) => {
        const [left, right] = halves([p], 0);
        return left.sum().add(right.mul(3).sum());
      },
      tensor([1, 2]),
    );
    expect(values(slope)).toEqual([3, 3]);
    expect(received.map((douts) => douts.map((d) => d !== null))).toEqual([[false, true]]);
    const nothing = grad((p: Tensor) => halves([p.slice(0, 0, 0)], 0)[0].sum(), tensor([1, 2]));
    expect(values(nothing)).toEqual([0, 0]);
    expect(received).toHaveLength(1);
  });

  it("names the op whose gradient has another shape than its input", () => {
    const odd = defineOp<undefined, readonly [Tensor, Tensor]>({
      name: "odd",
      forward: (_context, [x]) => [x!.mul(2), x!.mul(3)],
      backward: () => [ones([3])],
    });
    expect(() => grad((p: Tensor) => odd([p], undefined)[1].sum(), ones([2]))).toThrow(ShapeError);
    expect(() => grad((p: Tensor) => odd([p], undefined)[1].sum(), ones([2]))).toThrow("[odd]");
  });

  it("has the types of its results", () => {
    const one = defineOp<undefined>({
      name: "one",
      forward: (_context, [x]) => x!.mul(2),
      backward(_context, dout) {
        expectTypeOf(dout).toEqualTypeOf<Tensor>();
        return [dout.mul(2)];
      },
    });
    expectTypeOf(one).returns.toEqualTypeOf<Tensor>();
    const pair = defineOp<{ scale: number }, readonly [Tensor, Tensor]>({
      name: "pair",
      forward: (_context, [x], { scale }) => [x!, x!.mul(scale)],
      backward(_context, douts) {
        expectTypeOf(douts).toEqualTypeOf<readonly [Tensor | null, Tensor | null]>();
        return [douts[0]];
      },
    });
    expectTypeOf(pair).returns.toEqualTypeOf<readonly [Tensor, Tensor]>();
    defineOp<undefined, readonly Tensor[]>({
      name: "list",
      forward: (_context, inputs) => inputs,
      backward(_context, douts) {
        expectTypeOf(douts).toEqualTypeOf<readonly (Tensor | null)[]>();
        return douts;
      },
    });
  });
});

describe("noGrad", () => {
  it("makes a constant also of a result that is its input", () => {
    const slope = grad(
      (p: Tensor) => {
        const same = noGrad(() => expand(p, p.shape));
        return same.mul(p).sum();
      },
      tensor([2, 3]),
    );
    expect(values(slope)).toEqual([2, 3]);
  });

  it("leaves nothing behind", () => {
    const w = ones([2]);
    const before = memory().tensors;
    grad((p: Tensor) => p.mul(noGrad(() => expand(p, p.shape))).sum(), w).dispose();
    expect(memory().tensors).toBe(before);
  });
});
