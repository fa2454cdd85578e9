import { type Tensor, tensor, tensorsOf } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { expectClose, orthogonal, random } from "../test/matrices.js";
import { type GradientTransformation, Shampoo, scaleByShampoo, shampoo } from "./index.js";

/** Unscaled directions: no graft, no momentum, axes as they are. */
const bare = { graft: "none", momentum: 0, mergeDims: 2 } as const;

/** The updates after steps with these gradients. */
function after(transform: GradientTransformation, grads: readonly Tensor[]): Tensor {
  let state = transform.init(grads[0]!);
  let last = grads[0]!;
  for (const g of grads) {
    const result = transform.update(g, state, g);
    state = result.state;
    last = result.updates;
  }
  return last;
}

const several = (count: number, shape: readonly number[]) => Array.from({ length: count }, (_, i) => random(i, shape));

describe("scaleByShampoo", () => {
  it("of a diagonal gradient by hand", () => {
    // G = diag(4, 9): both statistics are diag(16, 81), their inverse fourth roots diag(1/2, 1/3), and P G P = diag(4/4, 9/9).
    const g = tensor(Float64Array.of(4, 0, 0, 9), { shape: [2, 2] });
    const u = after(scaleByShampoo({ ...bare, beta2: 1, eps: 1e-14, mergeDims: 0 }), [g]);
    expectClose(u, tensor(Float64Array.of(1, 0, 0, 1), { shape: [2, 2] }), 1e-12);
  });

  it("is, of the first gradient, its orthogonal factor", () => {
    // (G Gᵀ)^(−1/4) G (Gᵀ G)^(−1/4) = U Vᵀ for G = U S Vᵀ.
    const [u, v] = [orthogonal(1, 5), orthogonal(2, 5)];
    const s = tensor(Float64Array.of(5, 4, 3, 2, 1));
    const direction = after(scaleByShampoo({ ...bare, beta2: 1, eps: 1e-14 }), [u.mul(s).matmul(v.T)]);
    expectClose(direction, u.matmul(v.T), 1e-11);
  });

  it.each([[6, 4], [2, 3, 5], [7]])("with blocks as large as the tensor is the unblocked one: %j", (...shape) => {
    const grads = several(4, shape);
    const whole = after(scaleByShampoo({ ...bare, blockSize: 0 }), grads);
    expectClose(after(scaleByShampoo({ ...bare, blockSize: 7 }), grads), whole, 1e-12);
  });

  it("treats blocks as tensors of their own", () => {
    const grads = several(3, [5, 4]);
    const blocked = after(scaleByShampoo({ ...bare, blockSize: 3 }), grads);
    const corner = (x: Tensor) => x.slice(0, 3, 5).slice(1, 0, 3);
    const alone = after(
      scaleByShampoo({ ...bare, blockSize: 0 }),
      grads.map((g) => corner(g).clone()),
    );
    expectClose(corner(blocked), alone, 1e-10);
  });

  it("turns with the gradients", () => {
    const grads = several(4, [4, 6]);
    const [q, r] = [orthogonal(7, 4), orthogonal(8, 6)];
    const turned = after(
      scaleByShampoo(bare),
      grads.map((g) => q.matmul(g).matmul(r)),
    );
    expectClose(turned, q.matmul(after(scaleByShampoo(bare), grads)).matmul(r), 1e-8);
  });

  it("by coupled Newton is that by eigendecomposition", () => {
    const grads = several(5, [6, 9]);
    const options = { ...bare, beta2: 0.9, eps: 1e-6 };
    expectClose(
      after(scaleByShampoo({ ...options, root: "coupledNewton" }), grads),
      after(scaleByShampoo(options), grads),
      1e-7,
    );
  });

  it("with a cutoff ignores directions without a gradient", () => {
    // G = 7 u vᵀ: the only eigenvalue of each statistic is 49, and 49^(−1/4) 7 49^(−1/4) = 1.
    const [u, v] = [random(1, [4, 1]), random(2, [1, 5])];
    const unit = u.matmul(v).div(u.square().sum().mul(v.square().sum()).sqrt());
    const direction = after(scaleByShampoo({ ...bare, beta2: 1, ridge: "cutoff" }), [unit.mul(7)]);
    expectClose(direction, unit, 1e-12);
  });

  it("keeps roots and statistics between their intervals", () => {
    const transform = scaleByShampoo({ ...bare, rootEvery: 3, statEvery: 2 });
    const grads = several(5, [3, 4]);
    let state = transform.init(grads[0]!);
    const seen = grads.map((g) => {
      ({ state } = transform.update(g, state, g));
      const { statistics, roots } = (
        state as { factors: Record<string, { statistics: Tensor[][]; roots: Tensor[][] }> }
      ).factors[""]!;
      return [statistics[0]![0]!, roots[0]![0]!].map((x) => Array.from(x.dataSync()).join());
    });
    const changed = (what: number) => seen.map((now, i) => i === 0 || now[what] !== seen[i - 1]![what]);
    expect(changed(0)).toEqual([true, false, true, false, true]);
    expect(changed(1)).toEqual([true, false, false, true, false]);
  });

  it("gives 0 for zero gradients, whatever the graft", () => {
    for (const graft of ["none", "rmsprop", "sgd", "rmspropNorm"] as const) {
      const u = after(scaleByShampoo({ graft, mergeDims: 2 }), [random(1, [3, 4]).mul(0)]);
      expect(Array.from(u.dataSync())).toEqual(new Array(12).fill(0));
    }
  });

  it("has the length of its graft", () => {
    const g = random(1, [4, 5]);
    const u = after(scaleByShampoo({ graft: "sgd", momentum: 0, mergeDims: 2 }), [g]);
    expectClose(u.square().sum().sqrt(), g.square().sum().sqrt(), 1e-12);
    expect(u.sub(g).square().max().itemSync()).toBeGreaterThan(0.01);
  });

  it("leaves skipped tensors to the graft: vectors and long axes", () => {
    for (const options of [{ skipRank1: true }, { skipRank1: false, skipDimGt: 4 }]) {
      const g = random(1, [5]);
      const transform = scaleByShampoo({ graft: "sgd", momentum: 0, ...options });
      expect(tensorsOf(transform.init(g))).toHaveLength(0);
      expectClose(after(transform, [g]), g, 0);
    }
  });

  it("steps tensors of one shape together as it steps each alone", () => {
    const grads = { a: random(1, [4, 6]), b: random(2, [4, 6]), c: random(3, [6]) };
    const transform = scaleByShampoo({ mergeDims: 2, blockSize: 4 });
    const { updates } = transform.update(grads, transform.init(grads), grads);
    for (const name of ["a", "b", "c"] as const) expectClose(updates[name], after(transform, [grads[name]]), 1e-11);
  });

  it("refuses what is outside its domain", () => {
    expect(() => shampoo(0.1, { beta2: 0 })).toThrow("[scaleByShampoo] beta2 must be a number in (0, 1]; received 0.");
    expect(() => shampoo(0.1, { rootEvery: 0 })).toThrow(
      "[scaleByShampoo] rootEvery must be an integer of at least 1; received 0.",
    );
    expect(() => shampoo(0.1, { root: "coupledNewton", ridge: "cutoff" })).toThrow(
      'ridge must be one of "relative", "absolute"; received "cutoff"',
    );
    expect(() => shampoo(0.1, { graft: "adam" as "sgd" })).toThrow("[scaleByShampoo] graft must be one of");
    expect(() => new Shampoo({ w: new Float32Array(4) }, { eps: -1 })).toThrow(
      "[Shampoo] eps must be a number of at least 0",
    );
  });
});

describe("Shampoo", () => {
  it("keeps 2(m² + n²) + 2mn numbers of a matrix", () => {
    for (const [m, n] of [
      [8, 20],
      [33, 5],
    ] as const) {
      const w = new Float32Array(m * n);
      const optimizer = new Shampoo({ w }, { shapes: { w: [m, n] }, mergeDims: 4 });
      expect(optimizer.stateBytes()).toBe(4 * (2 * (m * m + n * n) + 2 * m * n));
    }
  });
});
