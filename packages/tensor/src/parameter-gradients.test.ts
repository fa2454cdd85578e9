import { describe, expect, it } from "vitest";
import {
  checkpoint,
  clone,
  full,
  type GradientOptions,
  grad,
  keep,
  memory,
  noGrad,
  OptionError,
  ones,
  ShapeError,
  type Tensor,
  tensor,
  valueAndGrad,
} from "./index.js";

const values = (x: Tensor) => [...x.dataSync()];

describe("onGradient", () => {
  const params = () => ({
    unused: tensor([1]),
    layers: [{ w: tensor([2]) }, { w: tensor([3]) }, { w: tensor([5]) }],
    tied: tensor([7]),
    sideEffect: tensor([11]),
  });
  type Params = ReturnType<typeof params>;
  /** tied · w0 · w1 · w2 · tied, with a use of one parameter that the loss doesn't depend on. */
  const loss = ({ layers, tied, sideEffect }: Params) => {
    sideEffect.mul(2);
    let h = tied;
    for (const { w } of layers) h = h.mul(w);
    return h.mul(tied).sum();
  };

  it("is called once for each parameter, in the order in which they are final", () => {
    const seen: [string, number][] = [];
    const p = params();
    const { grads } = valueAndGrad(loss, p, { onGradient: (path, g) => void seen.push([path, g.itemSync()]) });
    // d/dwᵢ = 49 · the others; tied was used last and first, so it waits for the first layer; the unused come last, in their order.
    expect(seen).toEqual([
      ["layers.2.w", 49 * 6],
      ["layers.1.w", 49 * 10],
      ["tied", 2 * 7 * 30],
      ["layers.0.w", 49 * 15],
      ["unused", 0],
      ["sideEffect", 0],
    ]);
    expect(grads.layers.map(({ w }) => w.itemSync())).toEqual([735, 490, 294]);
    expect([grads.tied, grads.unused].map((g) => g.itemSync())).toEqual([420, 0]);
  });

  it("is called while earlier operations still wait for their gradients", () => {
    const tensorsThen: number[] = [];
    const w = [tensor([2]), tensor([3]), tensor([5])];
    grad(
      (ws: Tensor[]) =>
        ws
          .slice(1)
          .reduce((h, x) => h.mul(x), ws[0]!.mul(1))
          .sum(),
      w,
      {
        onGradient: () => void tensorsThen.push(memory().tensors),
      },
    );
    const [first, second, third] = tensorsThen as [number, number, number];
    expect(first).toBeGreaterThan(second); // what the later steps had saved is freed by and by
    expect(second).toBeGreaterThan(third);
  });

  it("comes after a checkpoint that uses the parameter, in its inputs or by closure", () => {
    const seen: string[] = [];
    const { grads } = valueAndGrad(
      ({ a, b }: Record<"a" | "b", Tensor>) =>
        checkpoint((x: Tensor) => x.mul(b), a)
          .mul(b)
          .sum(),
      { a: tensor([2]), b: tensor([3]) },
      { onGradient: (path) => void seen.push(path) },
    );
    expect(seen.sort()).toEqual(["a", "b"]);
    expect([grads.a.itemSync(), grads.b.itemSync()]).toEqual([9, 12]);
  });

  it("gives the tensor that stands in the gradients, which may be changed in place", () => {
    const seen: Tensor[] = [];
    const { grads } = valueAndGrad((p: Tensor[]) => p[0]!.add(p[1]!).sum(), [tensor([2]), tensor([3])], {
      onGradient: (_path, g) => {
        seen.push(g);
      },
    });
    expect(new Set(seen)).toEqual(new Set(grads));
    expect(grads.map((g) => g.itemSync())).toEqual([1, 1]);
  });

  it("takes the place of the gradient by what it returns", () => {
    const mine = full([2], 9);
    const cases: [string, NonNullable<GradientOptions["onGradient"]>, number[]][] = [
      ["computed", (_path, g) => g.mul(10), [20, 40]],
      ["a view", (_path, g) => g.mul(10).slice(0, 0, 1).expand([2]), [20, 20]],
      ["the same", (_path, g) => g, [2, 4]],
      ["the caller's own", () => mine, [9, 9]],
      ["nothing", () => undefined, [2, 4]],
    ];
    const w = tensor([1, 2]);
    const before = memory();
    for (const [name, onGradient, expected] of cases) {
      const g = grad((p: Tensor) => p.square().sum(), w, { onGradient });
      expect(values(g), name).toEqual(expected);
      expect(memory().tensors, name).toBe(before.tensors + 1);
      g.dispose();
    }
    expect(values(mine)).toEqual([9, 9]);
    expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
  });

  it("may keep tensors, and runs without recording", () => {
    let copy: Tensor | undefined;
    const slope = grad(
      (p: Tensor) =>
        grad(
          (q: Tensor) => q.square().sum(),
          noGrad(() => p.detach()),
          {
            onGradient: (_path, g) => {
              copy = keep(clone(g));
            },
          },
        ).mul(p),
      tensor([3]),
      { onGradient: (_path, g) => g.add(copy!) },
    );
    expect(slope.itemSync()).toBe(6 + 6);
  });

  it("names a single tensor by the empty path", () => {
    const seen: string[] = [];
    grad((p: Tensor) => p.square(), tensor([1]), { onGradient: (path) => void seen.push(path) });
    grad((p: Tensor) => p, tensor([1]), { onGradient: (path) => void seen.push(path) });
    expect(seen).toEqual(["", ""]);
  });

  it("passes its errors on and leaves nothing behind", () => {
    const p = params();
    const before = memory();
    for (const failAt of [1, 3, 5, 6]) {
      let calls = 0;
      const onGradient = (_path: string, g: Tensor) => {
        g.mul(2);
        if (++calls === failAt) throw new TypeError("mine");
        return g.mul(3);
      };
      expect(() => valueAndGrad(loss, p, { onGradient })).toThrow("mine");
      expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
    }
  });

  const wrong: [string, unknown, new (m: string) => Error, string][] = [
    ["another shape", () => ones([3]), ShapeError, 'expected float32 [2] for the parameter "w"; received float32 [3]'],
    ["another dtype", (_p: string, g: Tensor) => g.astype("float64"), ShapeError, "received float64 [2]"],
    ["a number", () => 1, OptionError, "expected a tensor or nothing"],
    ["a Promise", async () => undefined, OptionError, "[onGradient] expected a function that returns a value"],
  ];
  it.each(wrong)("must not return %s", (_name, onGradient, ErrorClass, message) => {
    const call = () =>
      grad(({ w }: { w: Tensor }) => w.sum(), { w: ones([2]) }, { onGradient: onGradient as () => undefined });
    expect(call).toThrow(ErrorClass);
    expect(call).toThrow(message);
  });
});

describe("gradients of bfloat16 and float16 parameters", () => {
  it.each(["bfloat16", "float16"] as const)("are added up in float32 and rounded once (%s)", (dtype) => {
    // A sum that is rounded at each use stops growing after 2⁸ (bfloat16) or 2¹¹ (float16) uses.
    const uses = 2 ** 12;
    const w = tensor([1], { dtype });
    const { grads } = valueAndGrad((p: Tensor) => {
      let total = p.astype("float32");
      for (let i = 1; i < uses; i++) total = total.add(p.astype("float32"));
      return total.mul(1 / uses).sum();
    }, w);
    expect(grads.dtype).toBe(dtype);
    expect(grads.astype("float32").itemSync()).toBe(1);
  });
});
