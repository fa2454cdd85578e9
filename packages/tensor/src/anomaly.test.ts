import { describe, expect, it } from "vitest";
import { expectSameBits } from "../test/compare.js";
import { sample } from "../test/numbers.js";
import { opCases } from "../test/op-cases.js";
import {
  add,
  checkpoint,
  defineOp,
  detectAnomaly,
  exp,
  full,
  grad,
  log,
  memory,
  mul,
  NonFiniteError,
  noGrad,
  ones,
  scope,
  softmax,
  sqrt,
  type Tensor,
  tensor,
  valueAndGrad,
  zeros,
} from "./index.js";

/** The error that a call throws. */
function errorOf(call: () => unknown): NonFiniteError & { cause: Error } {
  try {
    call();
  } catch (error) {
    expect(error).toBeInstanceOf(NonFiniteError);
    return error as NonFiniteError & { cause: Error };
  }
  return expect.fail("nothing was thrown");
}

describe("detectAnomaly", () => {
  it("names the operation whose result is the first that isn't finite, its inputs and where it was called", () => {
    const error = errorOf(() =>
      detectAnomaly(function model() {
        const x = tensor([[1, -1]]);
        const y = sqrt(x);
        return softmax(y.add(1));
      }),
    );
    expect(error.message).toMatch(
      /^\[sqrt\] expected a finite result; received NaN in float32 \[1, 2\]\. Inputs: 1 is float32 \[1, 2\], finite\./,
    );
    expect(error.code).toBe("ERR_NON_FINITE");
    expect(error.cause.message).toBe("[sqrt] was called here");
    expect(error.cause.stack).toMatch(/model.*anomaly\.test\.ts/);
  });

  it("names the operation whose gradient is the first that isn't finite, and where it was called", () => {
    // d√x/dx is infinite at 0; times the 0 of exp' = 0·… it would be NaN later on.
    const w = tensor([0, 4]);
    const loss = (p: Tensor) => {
      const scaled = p.mul(tensor([0, 1]));
      return (function root() {
        return sqrt(scaled);
      })()
        .add(1)
        .sum();
    };
    expect(grad(loss, w).dataSync()[0]).toBeNaN();
    const before = memory();
    const error = errorOf(() => detectAnomaly(() => grad(loss, w)));
    expect(error.message).toContain(
      "[sqrt] expected a finite gradient of input 1; received an infinity in float32 [2].",
    );
    expect(error.message).toContain("Inputs: 1 is float32 [2], finite.");
    expect(error.cause.stack).toMatch(/root.*anomaly\.test\.ts/);
    expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
  });

  it("works without a gradient and in noGrad", () => {
    expect(errorOf(() => detectAnomaly(() => log(zeros([2])))).message).toContain("[log]");
    expect(errorOf(() => detectAnomaly(() => noGrad(() => exp(full([1], 1000))))).message).toContain("[exp]");
  });

  it("tells when NaN came in with an input", () => {
    const { message } = errorOf(() => detectAnomaly(() => add(ones([2]), tensor([1, Number.NaN]))));
    expect(message).toContain(
      "[add] expected a finite result; received NaN in float32 [2]. Inputs: 1 is float32 [2], finite; 2 is float32 [2], with NaN.",
    );
  });

  it("lets infinities pass that came in with an input or an option", () => {
    const mask = tensor([0, Number.NEGATIVE_INFINITY, 0]);
    const fillWith = defineOp<{ value: number }>({
      name: "fillWith",
      forward: (_context, [x], { value }) => full(x!.shape, value),
      backward: (_context, dout) => [dout.mul(0)],
    });
    const { value, grads } = detectAnomaly(() =>
      valueAndGrad(
        (p: Tensor) => {
          fillWith([p], { value: Number.NEGATIVE_INFINITY });
          return softmax(p.add(mask))
            .mul(tensor([1, 2, 3]))
            .sum();
        },
        tensor([1, 5, 1]),
      ),
    );
    expect(value.itemSync()).toBe(2);
    expect([...grads.dataSync()].map((g) => Math.round(g * 1e6) / 1e6)).toEqual([-0.5, 0, 0.5]);
    const all = full([3], Number.NEGATIVE_INFINITY);
    expect(errorOf(() => detectAnomaly(() => all.sub(all))).message).toContain(
      "[sub] expected a finite result; received NaN",
    );
  });

  it("refuses only NaN with allowInfinity", () => {
    const run = (x: Tensor) => detectAnomaly(() => log(x), { allowInfinity: true });
    expect([...run(tensor([0, 1])).dataSync()]).toEqual([Number.NEGATIVE_INFINITY, 0]);
    expect(errorOf(() => run(tensor([-1]))).message).toContain("received NaN");
  });

  it("counts what comes out of an operation, not what it has in between", () => {
    // The gradient of 0⁰ by the exponent is 0, of which 0 · ln 0 is a part.
    const grads = detectAnomaly(() => grad(([a, b]: Tensor[]) => a!.pow(b!).sum(), [tensor([0, 2]), tensor([2, 0])]));
    expect(grads.map((g) => [...g.dataSync()][0])).toEqual([0, 0]);
  });

  it("inspects every result and gradient of an operation", () => {
    const op = defineOp<undefined, readonly [Tensor, Tensor]>({
      name: "pair",
      forward: (_context, [x]) => [x!.mul(1), x!.mul(2)],
      backward: (_context, [da]) => [da, da && full(da.shape, Number.NaN)],
    });
    const huge = full([1], 3e38);
    expect(errorOf(() => detectAnomaly(() => op([huge, huge], undefined))).message).toContain("finite result 2;");
    const run = () => detectAnomaly(() => grad(([a, b]: Tensor[]) => op([a!, b!], undefined)[0], [ones([]), ones([])]));
    expect(errorOf(run).message).toContain("[pair] expected a finite gradient of input 2; received NaN");
  });

  it("inspects the sum of gradients of several uses", () => {
    const loss = (p: Tensor) => p.mul(3e38).sum().add(p.mul(2e38).sum()).mul(1e-38);
    const big = (p: Tensor) => mul(loss(p), 1e38);
    const error = errorOf(() => detectAnomaly(() => grad(big, full([2], 1e-30))));
    expect(error.message).toContain("[mul] expected a finite sum of gradients; received an infinity in float32 [2]");
    expect(() => detectAnomaly(() => grad(big, full([2], 1e-30)), { allowInfinity: true })).not.toThrow();
  });

  it("inspects bfloat16, empty and integer tensors", () => {
    const wide = full([2], 3e38);
    expect(errorOf(() => detectAnomaly(() => full([2], 1e30).astype("float16"))).message).toContain("[astype]");
    expect(detectAnomaly(() => wide.astype("bfloat16").astype("int32").reshape([2, 1])).dtype).toBe("int32");
    expect(detectAnomaly(() => zeros([0]).add(1)).size).toBe(0);
  });

  it("inspects what a checkpoint computes again, and the gradients in it", () => {
    const run = () =>
      detectAnomaly(() => grad((p: Tensor) => checkpoint((q: Tensor) => sqrt(q.mul(2)), p).sum(), zeros([2])));
    expect(errorOf(run).message).toContain("[sqrt] expected a finite gradient");
  });

  it("goes with the calls made in it: their gradients are inspected when they are computed later", () => {
    const loss = (p: Tensor) => detectAnomaly(() => sqrt(p)).sum();
    expect(errorOf(() => grad(loss, zeros([1]))).message).toContain("[sqrt]");
    const other = (p: Tensor) => {
      detectAnomaly(() => p.mul(1));
      return sqrt(p).sum();
    };
    expect(grad(other, zeros([1])).itemSync()).toBe(Number.POSITIVE_INFINITY);
  });

  it("ends with its function, also by an error, and leaves nothing behind", () => {
    const x = zeros([2]);
    const before = memory();
    errorOf(() => detectAnomaly(() => log(x)));
    expect(() => detectAnomaly(async () => 1)).toThrow("Promise");
    const infinite = log(x);
    expect(infinite.dataSync()[0]).toBe(Number.NEGATIVE_INFINITY);
    infinite.dispose();
    expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
  });

  it.each(opCases.map((c) => [c.name, c] as const))("changes no bit of %s", (_name, { inputs, compute, range }) => {
    scope(() => {
      const [low, high] = range ?? [-1, 1];
      const params = inputs.map((shape, i) => sample(shape, i + 1, { low, high }));
      const run = () =>
        grad(
          (xs: Tensor[]) =>
            compute(...xs)
              .square()
              .sum(),
          params,
        );
      const expected = run();
      for (const [i, g] of detectAnomaly(run).entries()) expectSameBits(g.dataSync(), expected[i]!.dataSync());
    });
  });
});
