import { scope, type Tensor, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { expectClose, orthogonal, random } from "../test/matrices.js";
import { PsgdKron, type PsgdKronState, psgdKron, scaleByPsgdKron } from "./index.js";

describe("scaleByPsgdKron", () => {
  it("whitens gradients of one distribution", () => {
    const [m, n] = [4, 6];
    const [u, v] = [orthogonal(1, m), orthogonal(2, n)];
    const left = u.mul(tensor(Float64Array.of(8, 4, 2, 1)));
    const right = v.mul(tensor(Float64Array.of(3, 2, 1, 1, 0.5, 0.3)));
    const gradAt = (t: number) => left.matmul(random(t, [m, n])).matmul(right.T);
    const transform = scaleByPsgdKron({ momentum: 0, maxSkew: 10, clipRms: 100, clipMax: 100 });
    let state = transform.init(gradAt(0));
    let moment = random(0, [m, m]).mul(0);
    const [settled, steps] = [500, 700];
    for (let t = 0; t < steps; t++) {
      ({ state, moment } = scope(() => {
        const g = gradAt(t);
        const result = transform.update(g, state, g);
        const h = result.updates;
        return {
          state: result.state,
          moment: t < settled ? moment : moment.add(h.matmul(h.T).div(n * (steps - settled))),
        };
      }));
    }
    // E[(P G)(P G)ᵀ] / n = I; the step size 0.1 leaves some noise.
    const identity = tensor(
      Float64Array.from({ length: m * m }, (_, i) => (i % (m + 1) === 0 ? 1 : 0)),
      { shape: [m, m] },
    );
    expectClose(moment, identity, 0.3);
  });

  it("has dense factors for short axes and diagonal ones for long", () => {
    const factorsOf = (shape: readonly number[], options = {}) =>
      (scaleByPsgdKron(options).init(random(1, shape)) as PsgdKronState).factors[""]!.map(({ q }) => q.shape);
    expect(factorsOf([4, 6])).toEqual([[4, 4], [6]]);
    expect(factorsOf([6, 1, 4])).toEqual([[6], [4, 4]]);
    expect(factorsOf([4, 6], { maxSkew: 0 })).toEqual([[4], [6]]);
    expect(factorsOf([4, 6], { maxSkew: 2, maxSize: 5 })).toEqual([[4, 4], [6]]);
    expect(factorsOf([3])).toEqual([[3]]);
    expect(factorsOf([])).toEqual([[1]]);
    expect(new PsgdKron({ w: new Float32Array(24) }, { shapes: { w: [4, 6] } }).stateBytes()).toBe(
      4 * (24 + 16 + 6 + 2),
    );
  });

  it("clips by root mean square and then by number", () => {
    const g = tensor(Float64Array.of(30, 0, 0, 0, 0, 0, 0, 0, 0));
    // With an unfitted preconditioner: 30 has the root mean square 10, scaled to 2 it is 6, limited to 5.
    const transform = scaleByPsgdKron({ momentum: 0, preconditionerRate: 1e-12, clipMax: 5 });
    const u = transform.update(g, transform.init(g), g).updates;
    expectClose(u, g.mul(5 / 30), 1e-9);
  });

  it("averages the first gradients and balances its factors", () => {
    const transform = scaleByPsgdKron({ preconditionerRate: 1e-12, clipRms: 1e6, clipMax: 1e6 });
    const grads: Tensor[] = Array.from({ length: 3 }, (_, i) => random(i, [3, 3]));
    let state = transform.init(grads[0]!);
    let u = grads[0]!;
    for (const g of grads) ({ updates: u, state } = transform.update(g, state, g));
    expectClose(u, grads.reduce((sum, g) => sum.add(g)).div(3), 1e-9);

    const fitted = scaleByPsgdKron({ momentum: 0, maxSkew: 10 });
    let kron = fitted.init(grads[0]!) as PsgdKronState;
    for (let t = 0; t < 100; t++) {
      kron = scope(() => fitted.update(grads[t % 3]!.mul(100), kron, grads[0]!).state) as PsgdKronState;
    }
    const [first, second] = kron.factors[""]!.map(({ q }) => Math.max(...Array.from(q.dataSync(), Math.abs)));
    expect(first! / second!).toBeCloseTo(1, 12);
  });

  it("refuses what is outside its domain", () => {
    expect(() => psgdKron(0.1, { preconditionerRate: 1 })).toThrow(
      "preconditionerRate must be a number in (0, 1); received 1.",
    );
    expect(() => psgdKron(0.1, { whiten: "both" as "gradient" })).toThrow("[scaleByPsgdKron] whiten must be one of");
  });
});
