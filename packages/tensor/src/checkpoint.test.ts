import { describe, expect, expectTypeOf, it } from "vitest";
import { expectSameBits } from "../test/compare.js";
import { sample } from "../test/numbers.js";
import { opCases } from "../test/op-cases.js";
import {
  checkpoint,
  DisposedError,
  defineOp,
  detectAnomaly,
  grad,
  type KeepPolicy,
  keep,
  linear,
  marked,
  matmul,
  memory,
  noGrad,
  OptionError,
  ones,
  randomNormal,
  resetPeakMemory,
  rmsNorm,
  scope,
  sin,
  sync,
  type Tensor,
  tensor,
  tensorsOf,
  valueAndGrad,
} from "./index.js";

const float32 = (shape: number[], seed: number) => sample(shape, seed, { dtype: "float32" });
type Checkpoint = <A extends readonly unknown[], R>(fn: (...args: A) => R, ...args: A) => R;
const plain: Checkpoint = (fn, ...args) => fn(...args);
const keeping =
  (keep: KeepPolicy): Checkpoint =>
  (fn, ...args) =>
    checkpoint({ keep }, fn, ...args);
/** Checkpoints that keep nothing, everything, and half of the calls. */
const checkpoints: readonly Checkpoint[] = [
  checkpoint,
  keeping(() => true),
  keeping((op) => op.length % 2 === 0),
  keeping(["matmul", "linear", "attention"]),
];

/** Value and gradients with and without checkpoints have the same bits, and leave nothing behind. */
function expectSame<P extends Parameters<typeof tensorsOf>[0]>(params: P, loss: (p: P, c: Checkpoint) => Tensor): void {
  const before = memory();
  const run = (c: Checkpoint) => {
    const { value, grads } = valueAndGrad((p: never) => loss(p, c), params as never);
    return [value, ...tensorsOf(grads)];
  };
  const expected = run(plain);
  for (const c of checkpoints) {
    for (const [i, t] of run(c).entries()) {
      expectSameBits(t.dataSync(), expected[i]!.dataSync(), `tensor ${i}`);
      t.dispose();
    }
  }
  for (const t of expected) t.dispose();
  expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
}

describe("checkpoint", () => {
  const w = () => float32([8, 8], 1);
  const x = float32([4, 8], 2);

  it("computes a worked example", () => {
    // (x²)·x = x³, whose derivative at 2 is 12.
    const slope = grad((p: Tensor) => checkpoint((q: Tensor) => q.square().mul(q), p), tensor(2));
    expect(slope.itemSync()).toBe(12);
  });

  it("gives the same bits when parameters are inputs, closed over, and used many times in and outside", () => {
    expectSame({ w: w(), b: float32([8], 3) }, ({ w, b }, c) => {
      let h: Tensor = x;
      for (let layer = 0; layer < 3; layer++) {
        h = h.add(c((y: Tensor, b: Tensor) => matmul(matmul(y, w).exp().add(b), w).mul(0.01).add(y.mul(b)), h, b));
      }
      return h.add(b).square().mean().add(matmul(x, w).mean());
    });
  });

  it("gives the same bits when nested", () => {
    expectSame([w(), w()], ([a, b], c) =>
      c(
        (y: Tensor) => {
          const inner = c((z: Tensor) => sin(matmul(z, a!)).add(z), y);
          return c(
            (z: Tensor, u: Tensor) =>
              matmul(
                c((v: Tensor) => v.square(), z),
                b!,
              ).add(u),
            inner,
            a!.slice(0, 0, 4),
          );
        },
        matmul(x, b!),
      ).sum(),
    );
  });

  it.each(opCases.map((c) => [c.name, c] as const))(
    "gives the same bits for %s",
    (_name, { inputs, compute, range }) => {
      const [low, high] = range ?? [-1, 1];
      const params = inputs.map((shape, i) => sample(shape, i + 1, { low, high }));
      expectSame(params, (xs, c) => {
        const out = c((...ys: Tensor[]) => compute(...ys), ...xs);
        return out.mul(out.size === 0 ? 1 : sample(out.shape, 9)).sum();
      });
      for (const x of params) x.dispose();
    },
  );

  it("takes and gives trees, numbers and undefined", () => {
    const layer = { w: w(), rest: [float32([8], 3)], scale: 0.5, name: undefined };
    expectSame(float32([4, 8], 5), (p, c) => {
      const run = (y: Tensor, l: typeof layer, times: number) => {
        const out = matmul(y, l.w).mul(l.scale * times);
        return { out, parts: [out.square(), out], ids: tensor(Int32Array.of(1)), times };
      };
      const { out, parts, ids, times } = c(run, p, layer, 2);
      expect([ids.dtype, times, parts[1] === out]).toEqual(["int32", 2, true]);
      return out.add(parts[0]!).add(parts[1]!).sum();
    });
  });

  it("repeats random numbers, which have keys", () => {
    expectSame(float32([16], 5), (p, c) =>
      c((y: Tensor) => y.mul(randomNormal({ seed: 1, stream: 2 }, [16])), p).sum(),
    );
  });

  it("leaves what fn returns as it came: inputs, tensors of the outside, constants", () => {
    const constant = ones([8]);
    expectSame(float32([8], 5), (p, c) => {
      const outside = p.mul(3);
      const [a, b, d] = c((y: Tensor) => [y, outside, constant] as const, p);
      return a.mul(p).add(b.mul(b)).add(d).sum();
    });
    expect(constant.disposed).toBe(false);
  });

  it("treats detached tensors and noGrad inside as constants", () => {
    const slope = grad(
      (p: Tensor) => checkpoint((q: Tensor) => q.mul(noGrad(() => q.square())).add(q.detach().mul(q)), p).sum(),
      tensor([2, 3]),
    );
    expect([...slope.dataSync()]).toEqual([4 + 2, 9 + 3]);
  });

  it("works with scope, using and keep inside", () => {
    const kept: Tensor[] = [];
    const w = tensor([2, 3]);
    const before = memory().tensors;
    const slope = grad(
      (p: Tensor) =>
        checkpoint((q: Tensor) => {
          using half = q.mul(0.5);
          kept.push(keep(half.add(1)));
          return scope(() => half.mul(q).mul(2));
        }, p).sum(),
      w,
    );
    expect([...slope.dataSync()]).toEqual([4, 6]);
    expect(kept.map((t) => [...t.dataSync()])).toEqual([
      [2, 2.5],
      [2, 2.5],
    ]); // it ran twice
    for (const t of [slope, ...kept]) t.dispose();
    expect(memory().tensors).toBe(before);
  });

  it("is a scope where nothing is recorded", () => {
    const p = tensor([2]);
    const before = memory().tensors;
    const out = checkpoint((q: Tensor) => q.mul(2).mul(3), p);
    expect([out.itemSync(), memory().tensors - before]).toEqual([12, 1]);
    const slope = grad((q: Tensor) => noGrad(() => checkpoint((r: Tensor) => r.mul(2), q)).mul(q), tensor([3]));
    expect(slope.itemSync()).toBe(6);
    expectTypeOf(out).toEqualTypeOf<Tensor>();
  });

  it("doesn't record what doesn't depend on parameters", () => {
    let calls = 0;
    const slope = grad(
      (p: Tensor) => {
        const constant = checkpoint(
          (q: Tensor) => {
            calls++;
            return q.mul(2);
          },
          tensor([4]),
        );
        return p.mul(constant).sum();
      },
      tensor([3]),
    );
    expect([slope.itemSync(), calls]).toEqual([8, 1]);
  });

  it("keeps its inputs when they are disposed", () => {
    const slope = grad(
      (p: Tensor) => {
        using y = p.mul(3);
        return checkpoint((q: Tensor) => q.square(), y).sum();
      },
      tensor([2]),
    );
    expect(slope.itemSync()).toBe(36);
  });

  it("says what to do when a tensor that is no input was disposed", () => {
    const before = memory();
    const w = tensor([2]);
    const loss = (p: Tensor) => {
      using y = p.mul(3);
      return checkpoint((q: Tensor) => q.mul(y), p).sum();
    };
    expect(() => grad(loss, w)).toThrow(DisposedError);
    expect(() => grad(loss, w)).toThrow("[checkpoint] the function uses a tensor that was disposed");
    w.dispose();
    expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
  });

  const impure: [string, (p: Tensor, run: number) => unknown, string][] = [
    ["gives fewer tensors", (p, run) => (run === 1 ? [p.mul(2), p.mul(3)] : [p.mul(2)]), "1 tensors instead of 2"],
    ["gives another shape", (p, run) => p.mul(2).reshape(run === 1 ? [1] : []), "float32 [] instead of float32 [1]"],
    ["gives a constant", (p, run) => (run === 1 ? p.mul(2) : ones([1])), "or of other inputs"],
  ];
  it.each(impure)("refuses a function that %s the second time", (_name, fn, message) => {
    const before = memory();
    let run = 0;
    const loss = (p: Tensor) => {
      const result = checkpoint((q: Tensor) => fn(q, ++run), p);
      return [...tensorsOf(result)][0]!.sum();
    };
    const w = tensor([2]);
    expect(() => grad(loss, w)).toThrow(OptionError);
    run = 0;
    expect(() => grad(loss, w)).toThrow(message);
    w.dispose();
    expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
  });

  it("refuses a function that uses other tensors of the outside the second time", () => {
    let run = 0;
    const loss = (p: Tensor) => {
      const others = [p.mul(2), p.mul(3)];
      return checkpoint((q: Tensor) => q.mul(others[run++]!), p).sum();
    };
    expect(() => grad(loss, tensor([2]))).toThrow("mul used another tensor of the outside");
  });

  it("refuses an asynchronous function, and a gradient of a gradient", () => {
    expect(() => grad((p: Tensor) => checkpoint(async (q: Tensor) => q, p) as never, tensor(1))).toThrow("Promise");
    const nested = (p: Tensor) => checkpoint((q: Tensor) => grad((r: Tensor) => r.square(), q), p);
    expect(() => grad(nested, tensor(1))).toThrow("Gradients of gradients");
    const closed = (p: Tensor) => checkpoint((q: Tensor) => q.mul(grad((r: Tensor) => r.mul(p), tensor(2))), p);
    expect(() => grad(closed, tensor(1))).toThrow("Gradients of gradients");
  });

  it("passes errors of the second run on and frees everything", () => {
    let run = 0;
    const w = tensor([2]);
    const before = memory();
    const loss = (p: Tensor) =>
      checkpoint((q: Tensor) => {
        const y = q.exp();
        if (++run === 2) throw new TypeError("mine");
        return y;
      }, p).sum();
    expect(() => grad(loss, w)).toThrow("mine");
    expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
  });

  it("needs memory for √n layers at a time instead of n", async () => {
    const layers = 64;
    const size = 1 << 14;
    const bytes = size * 4;
    const start = ones([size]);
    const layer = (y: Tensor) => sin(y);
    const group = (n: number) => (y: Tensor) => {
      let h = y;
      for (let i = 0; i < n; i++) h = layer(h);
      return h;
    };
    const peak = async (loss: (p: Tensor) => Tensor) => {
      await sync();
      const before = memory().liveBytes;
      resetPeakMemory();
      grad(loss, start).dispose();
      await sync();
      return (memory().peakBytes - before) / bytes;
    };
    const all = await peak((p) => group(layers)(p).sum());
    const groups = await peak((p) => {
      let h = p;
      for (let i = 0; i < 8; i++) h = checkpoint(group(8), h);
      return h.sum();
    });
    const nested = await peak((p) => {
      const halves =
        (n: number) =>
        (y: Tensor): Tensor =>
          n === 1 ? layer(y) : checkpoint(halves(n / 2), checkpoint(halves(n / 2), y));
      return halves(layers)(p).sum();
    });
    // All 64 results; those of 8 groups and the 8 within one; with halves of halves, for each of 6 levels the result between the halves, the
    // whole one and its gradient. Beside them the parameter's gradient, two of the step at hand, and a few scalars.
    expect(all).toBeGreaterThanOrEqual(layers);
    expect(groups).toBeLessThanOrEqual(8 + 8 + 5);
    expect(nested).toBeLessThanOrEqual(3 * 6 + 5);
  });
});

describe("checkpoint with keep", () => {
  /** An operation that counts its forward passes. */
  const counted = (name: string) => {
    const calls = { forward: 0, backward: 0 };
    const op = defineOp<undefined>({
      name,
      forward(context, [x]) {
        calls.forward++;
        const twice = x!.mul(2);
        context.save(x!, twice);
        return x!.square();
      },
      backward({ saved: [, twice] }, dout) {
        calls.backward++;
        return [dout.mul(twice!)];
      },
    });
    return { calls, run: (x: Tensor) => op([x], undefined) };
  };

  it("runs kept operations once, the others twice, and each backward once", () => {
    const [dear, cheap] = [counted("dear"), counted("cheap")];
    const slope = grad(
      (p: Tensor) => checkpoint({ keep: ["dear"] }, (q: Tensor) => cheap.run(dear.run(cheap.run(q))), p).sum(),
      tensor([2, 3]),
    );
    // ((x²)²)² = x⁸
    expect([...slope.dataSync()]).toEqual([8 * 2 ** 7, 8 * 3 ** 7]);
    expect([dear.calls, cheap.calls]).toEqual([
      { forward: 1, backward: 1 },
      { forward: 4, backward: 2 },
    ]);
  });

  it("lets a function choose by the marks around a call", () => {
    const [a, b] = [counted("a"), counted("b")];
    const seen: [string, readonly string[]][] = [];
    const keep = (op: string, marks: readonly string[]) => {
      seen.push([op, marks]);
      return !marks.includes("inner");
    };
    const fn = (q: Tensor) => marked("outer", () => b.run(marked("inner", () => a.run(q))));
    grad((p: Tensor) => checkpoint({ keep }, fn, p).sum(), tensor([2])).dispose();
    expect([a.calls.forward, b.calls.forward]).toEqual([2, 1]);
    expect(seen.slice(0, 2)).toEqual([
      ["a", ["outer", "inner"]],
      ["b", ["outer"]],
    ]);
    expect(() =>
      marked("broken", () => {
        throw new Error("mine");
      }),
    ).toThrow("mine");
    seen.length = 0;
    grad((p: Tensor) => checkpoint({ keep }, a.run, p).sum(), tensor([2])).dispose();
    expect(seen[0]).toEqual(["a", []]);
  });

  it("keeps inside of what is computed again, and computes again inside of what keeps", () => {
    const nested = (outer: Checkpoint, inner: Checkpoint) => {
      const op = counted("dear");
      const slope = grad(
        (p: Tensor) => outer((q: Tensor) => inner((r: Tensor) => op.run(r), q.mul(3)).mul(2), p).sum(),
        tensor([2]),
      );
      expect(slope.itemSync()).toBe(72);
      return op.calls.forward;
    };
    const keeper = keeping(["dear"]);
    expect([nested(checkpoint, keeper), nested(keeper, checkpoint), nested(keeper, keeper)]).toEqual([2, 3, 2]);
    expect(nested(plain, keeper)).toBe(1);
  });

  it("frees what it holds when nothing is recorded, when the function throws, and when no backward comes", () => {
    const before = memory();
    const keep = () => true;
    const w = tensor([2]);
    checkpoint({ keep }, (q: Tensor) => q.square(), w).dispose();
    const throwing = (q: Tensor) => {
      q.square().exp();
      throw new TypeError("mine");
    };
    expect(() => grad((p: Tensor) => checkpoint({ keep }, throwing, p), w)).toThrow("mine");
    const constant = (p: Tensor) =>
      checkpoint({ keep }, (q: Tensor) => q.square().exp().detach(), p)
        .add(p)
        .sum();
    grad(constant, w).dispose();
    const unread = (p: Tensor) => {
      checkpoint({ keep }, (q: Tensor) => q.square().exp(), p);
      throw new TypeError("later");
    };
    expect(() => grad(unread, w)).toThrow("later");
    w.dispose();
    expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
  });

  const impure: [string, (q: Tensor, run: number) => Tensor, string][] = [
    ["another operation", (q, run) => (run === 1 ? q.square() : q.exp()), "it called exp instead of square"],
    ["more operations", (q, run) => (run === 1 ? q.square() : q.square().square()), "square instead of nothing more"],
    ["fewer operations", (q, run) => (run === 1 ? q.square().square() : q.square()), "it didn't call square as often"],
  ];
  it.each(impure)("refuses a function that calls %s the second time", (_what, fn, message) => {
    const before = memory();
    const w = tensor([2]);
    let run = 0;
    const loss = (p: Tensor) => checkpoint({ keep: () => true }, (q: Tensor) => fn(q, ++run), p).sum();
    expect(() => grad(loss, w)).toThrow(message);
    w.dispose();
    expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
  });

  it("is looked into by detectAnomaly, also where the forward pass doesn't run again", () => {
    const run = (keep: KeepPolicy) => () =>
      detectAnomaly(() => grad((p: Tensor) => checkpoint({ keep }, (q: Tensor) => q.sqrt(), p).sum(), tensor([0, 1])));
    expect(run(["sqrt"])).toThrow("[sqrt] expected a finite gradient of input 1");
    expect(run([])).toThrow("[sqrt] expected a finite gradient of input 1");
  });

  it.each<[unknown, string]>([
    [{ keeps: [] }, 'there is no option "keeps"'],
    [{ keep: "linear" }, "received string"],
    [{ keep: [1] }, "received an array of something else"],
    [{ keep: ["attention", "linaer"] }, 'there is no operation "linaer". Operations: '],
    [null, "expected a function, or options and a function"],
  ])("refuses %j", (options, message) => {
    expect(() => checkpoint(options as never, (q: Tensor) => q, tensor([1]))).toThrow(OptionError);
    expect(() => checkpoint(options as never, (q: Tensor) => q, tensor([1]))).toThrow(message);
  });

  it("needs memory between the two extremes: for the products' results, not for norms and activations", async () => {
    const layers = 16;
    const [rows, width] = [512, 32];
    const bytes = rows * width * 4;
    const weights = Array.from({ length: layers }, (_, i) => float32([width, width], i));
    const scale = ones([width]);
    const x = float32([rows, width], 99);
    const layer = (h: Tensor, w: Tensor) => linear(sin(linear(rmsNorm(h, scale), w)).square(), w);
    const peak = async (c: Checkpoint) => {
      await sync();
      const before = memory().liveBytes;
      resetPeakMemory();
      const grads = grad((ws: Tensor[]) => ws.reduce((h, w) => c(layer, h, w), x).sum(), weights);
      await sync();
      const { peakBytes } = memory();
      for (const g of grads) g.dispose();
      return (peakBytes - before) / bytes;
    };
    // A layer holds what the norm, both products, sine and square are computed from; of these the first product's result beside the layer's input; the
    // input alone. Then there are a layer computed again, gradients of the step at hand, and those of the weights, 1/16 of an activation each.
    const beside = 5 + 4 + layers / 16;
    const [all, kept, none] = [await peak(plain), await peak(keeping(["linear"])), await peak(checkpoint)];
    expect(all).toBeGreaterThanOrEqual(5 * layers);
    expect(kept).toBeGreaterThanOrEqual(2 * layers);
    expect(kept).toBeLessThanOrEqual(2 * layers + beside);
    expect(none).toBeLessThanOrEqual(layers + beside);
  });
});
