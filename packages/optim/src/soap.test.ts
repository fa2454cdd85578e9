import { type Tensor, tensor, tensorsOf } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { expectClose, orthogonal, random } from "../test/matrices.js";
import {
  applyUpdates,
  type GradientTransformation,
  Soap,
  type SoapState,
  scaleByAdam,
  scaleBySoap,
  soap,
} from "./index.js";

const several = (count: number, shape: readonly number[]) => Array.from({ length: count }, (_, i) => random(i, shape));

/** All updates of steps with these gradients. */
function all<S extends SoapState>(
  transform: GradientTransformation<S>,
  grads: readonly Tensor[],
): { updates: Tensor[]; state: S } {
  let state = transform.init(grads[0]!);
  const updates = grads.map((g) => {
    const result = transform.update(g, state, g);
    state = result.state;
    return result.updates;
  });
  return { updates, state };
}

describe("scaleBySoap", () => {
  it("changes nothing at its first call", () => {
    const g = random(1, [3, 4]);
    const { updates, state } = all(scaleBySoap(), [g]);
    expect(Array.from(updates[0]!.dataSync())).toEqual(new Array(12).fill(0));
    expectClose(state.rotations[""]!["0"]!.moment, g.matmul(g.T).mul(0.05), 1e-14);
    const p = random(2, [3, 4]);
    const transform = soap(0.1, { weightDecay: 0.5 });
    expectClose(applyUpdates(p, transform.update(g, transform.init(p), p).updates), p, 0);
  });

  it("of the gradient that made its basis is the orthogonal factor, in Adam's size", () => {
    // In the eigenbasis the gradient is diagonal, and Adam makes its nonzero numbers ±1: eps 0, t = 1. Others are 0/0 to rounding, hence the square.
    const [u, v] = [orthogonal(1, 4), orthogonal(2, 4)];
    const g = u.mul(tensor(Float64Array.of(8, 4, 2, 1))).matmul(v.T);
    const { updates } = all(scaleBySoap({ eps: 1e-6 }), [g, g]);
    expectClose(updates[1]!, u.matmul(v.T), 1e-4);
  });

  it("without rotated axes is Adam, one step late", () => {
    const grads = several(5, [3, 4]);
    const { updates } = all(scaleBySoap({ maxPrecondDim: 2, eps: 0 }), grads);
    const adam = scaleByAdam({ beta1: 0.95, beta2: 0.95, eps: 0 });
    let state = adam.init(grads[1]!);
    for (const [i, g] of grads.slice(1).entries()) {
      const result = adam.update(g, state, g);
      state = result.state;
      expectClose(updates[i + 1]!, result.updates, 1e-13);
    }
  });

  it.each([1, 3])("turns with the gradients (every %i steps)", (preconditionFrequency) => {
    const grads = several(8, [4, 4]);
    const [q, r] = [orthogonal(7, 4), orthogonal(8, 4)];
    const transform = scaleBySoap({ preconditionFrequency });
    const turned = all(
      transform,
      grads.map((g) => q.matmul(g).matmul(r)),
    ).updates;
    const { updates } = all(transform, grads);
    for (const [i, u] of turned.slice(1).entries()) expectClose(u, q.matmul(updates[i + 1]!).matmul(r), 1e-7);
  });

  it("keeps its bases orthonormal and brings them to the eigenvectors", () => {
    const [u, v] = [orthogonal(1, 5), orthogonal(2, 5)];
    const scales = tensor(Float64Array.of(16, 8, 4, 2, 1));
    // Gradients of one distribution: rows of very different sizes along u.
    const grads = several(200, [5, 5]).map((x) => u.mul(scales).matmul(x).matmul(v.T));
    const { state } = all(scaleBySoap({ preconditionFrequency: 2, beta2: 0.9 }), grads);
    const { moment, basis } = state.rotations[""]!["0"]!;
    expectClose(
      basis.T.matmul(basis),
      tensor(
        Float64Array.from({ length: 25 }, (_, i) => (i % 6 === 0 ? 1 : 0)),
        { shape: [5, 5] },
      ),
      1e-12,
    );
    const inBasis = basis.T.matmul(moment).matmul(basis).dataSync();
    let [on, off] = [0, 0];
    for (const [i, x] of inBasis.entries()) {
      if (i % 6 === 0) on += x ** 2;
      else off += x ** 2;
    }
    expect(off / on).toBeLessThan(0.02);
  });

  it("decays after the step", () => {
    // lr 0.1, wd 0.5: (p − 0.1 u)(1 − 0.05) − p.
    const [g, p] = [random(1, [3, 3]), random(2, [3, 3])];
    const transform = soap(0.1, { weightDecay: 0.5 });
    const first = transform.update(g, transform.init(p), p);
    const u = scaleBySoap().update(g, first.state, p).updates;
    const { updates } = transform.update(g, first.state, p);
    expectClose(updates, p.sub(u.mul(0.1)).mul(0.95).sub(p), 1e-12);
    const masked = soap(0.1, { weightDecay: 0.5, mask: () => false });
    expectClose(masked.update(g, first.state, p).updates, u.mul(-0.1), 1e-12);
  });

  it("has matrices of the rotated axes alone in its state", () => {
    const state = scaleBySoap({ maxPrecondDim: 4 }).init({ w: random(1, [6, 3]), b: random(2, [3]) });
    expect(Object.keys(state.rotations.w!)).toEqual(["1"]);
    expect(tensorsOf(state.rotations.b!)).toHaveLength(0);
    expect(new Soap({ w: new Float32Array(24) }, { shapes: { w: [4, 6] } }).stateBytes()).toBe(
      4 * (2 * 24 + 2 * (16 + 36)),
    );
  });

  it("refuses what is outside its domain", () => {
    expect(() => soap(0.1, { preconditionFrequency: 0 })).toThrow(
      "[scaleBySoap] preconditionFrequency must be an integer of at least 1; received 0.",
    );
    expect(() => soap(-1)).toThrow("[soap] learningRate must be a number of at least 0; received -1.");
  });
});
