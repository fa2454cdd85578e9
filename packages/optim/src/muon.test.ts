import { svd, type Tensor, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { expectClose, orthogonal, random } from "../test/matrices.js";
import { AdamW, Muon, muon, newtonSchulz, scaleByMuon } from "./index.js";

/** One step of a transform on one tensor. */
function once(transform: ReturnType<typeof scaleByMuon>, g: Tensor): Tensor {
  return transform.update(g, transform.init(g), g).updates;
}

describe("newtonSchulz", () => {
  it("takes a matrix of rank one through the polynomial by hand", () => {
    let x = 1;
    for (let step = 0; step < 5; step++) x = 3.4445 * x - 4.775 * x ** 3 + 2.0315 * x ** 5;
    // The singular value of [3, 4] is its length: it begins at 1 and comes out as x, along (0.6, 0.8).
    const out = newtonSchulz(tensor(Float64Array.of(3, 4), { shape: [1, 2] })).dataSync();
    expect(out[0]).toBeCloseTo(0.6 * x, 6);
    expect(out[1]).toBeCloseTo(0.8 * x, 6);
  });

  it.each(["float64", "float32", "bfloat16"] as const)("leaves singular values within [0.6, 1.3] in %s", (dtype) => {
    for (const [stream, shape] of [
      [16, 24],
      [24, 16],
      [20, 20],
    ].entries()) {
      const x = random(stream, [3, ...shape]).astype("float32");
      const { s } = svd(newtonSchulz(x, { dtype }));
      for (const value of s.dataSync()) {
        expect(value).toBeGreaterThan(0.6);
        expect(value).toBeLessThan(1.3);
      }
    }
  });

  it("doesn't see the scale of a matrix and turns with it", () => {
    const x = random(3, [6, 9]);
    const out = newtonSchulz(x);
    expectClose(newtonSchulz(x.mul(1e6)), out, 1e-7);
    expectClose(newtonSchulz(x.T), out.T, 1e-12);
    const q = orthogonal(4, 6);
    expectClose(newtonSchulz(q.matmul(x)), q.matmul(out), 1e-11);
  });

  it("gives 0 for 0", () => {
    expect(Array.from(newtonSchulz(random(1, [3, 4]).mul(0)).dataSync())).toEqual(new Array(12).fill(0));
  });
});

describe("scaleByMuon", () => {
  it.each([
    ["original", [8, 2], 2],
    ["original", [2, 8], 1],
    ["matchRmsAdamw", [8, 2], 0.2 * Math.sqrt(8)],
    ["matchRmsAdamw", [2, 32], 0.2 * Math.sqrt(32)],
    ["none", [8, 2], 1],
  ] as const)("scale %s of %j is %f", (scale, shape, factor) => {
    // At first the average is 0.05 g, and with Nesterov's step 0.05 g + 0.95 · 0.05 g is orthogonalized.
    const g = random(1, shape);
    expectClose(once(scaleByMuon({ scale }), g), newtonSchulz(g.mul(0.0975)).mul(factor), 1e-12);
  });

  it("sees convolutions as matrices of output channels", () => {
    const g = random(2, [4, 3, 2, 2]);
    const flat = once(scaleByMuon(), g.reshape([4, 12]));
    expectClose(once(scaleByMuon(), g), flat.reshape([4, 3, 2, 2]), 1e-12);
  });

  it("steps matrices of one shape together as it steps each alone", () => {
    const grads = { a: random(1, [5, 7]), b: random(2, [5, 7]), c: random(3, [7, 5]) };
    const transform = scaleByMuon();
    const { updates, state } = transform.update(grads, transform.init(grads), grads);
    const next = transform.update(grads, state, grads).updates;
    for (const name of ["a", "b", "c"] as const) {
      expectClose(updates[name], once(transform, grads[name]), 1e-12);
      // The same gradient again leaves its direction.
      expectClose(next[name], updates[name], 1e-5);
    }
  });

  it("refuses vectors and unknown options", () => {
    expect(() => scaleByMuon().init({ bias: random(1, [3]) })).toThrow('[scaleByMuon] "bias" has shape [3]');
    expect(() => scaleByMuon({ momentum: 1 })).toThrow(
      "[scaleByMuon] momentum must be a number in [0, 1); received 1.",
    );
    expect(() => muon(0.1, { nsSteps: 2.5 })).toThrow("[muon] nsSteps must be an integer of at least 0; received 2.5.");
    expect(() => muon(0.1, { scale: "big" as "none" })).toThrow("[muon] scale must be one of");
    expect(() => muon(0.1, { lr: 1 } as object)).toThrow('[muon] unknown option "lr"');
  });
});

describe("Muon", () => {
  const shapes = { embed: [4, 3], hidden: [3, 3], bias: [3] };
  const start = () => ({
    embed: Float64Array.from({ length: 12 }, (_, i) => Math.cos(i)),
    hidden: Float64Array.from({ length: 9 }, (_, i) => Math.sin(i)),
    bias: Float64Array.of(1, 2, 3),
  });
  const gradsAt = (step: number) =>
    Object.fromEntries(Object.entries(start()).map(([name, x]) => [name, x.map((y, i) => Math.sin(3 * y + i + step))]));

  it("gives AdamW what isn't a matrix, and the groups that ask for it", () => {
    const own = start();
    const adam = start();
    const optimizer = new Muon(own, {
      shapes,
      adamLearningRate: 0.01,
      adamWeightDecay: 0.1,
      groups: [{ params: /embed/, method: "adamw" }],
    });
    const options = { learningRate: 0.01, beta2: 0.95, eps: 1e-10, weightDecay: 0.1 };
    const reference = new AdamW(adam, options);
    for (let step = 0; step < 5; step++) for (const one of [optimizer, reference]) one.step(gradsAt(step));
    for (const name of ["embed", "bias"] as const) {
      for (const [i, x] of own[name].entries()) expect(Math.abs(x - adam[name][i]!)).toBeLessThan(1e-13);
    }
    expect(own.hidden).not.toEqual(adam.hidden);
    // One number a parameter of the matrix, two of the others.
    expect(optimizer.stateBytes()).toBe(8 * (9 + 2 * 15));
  });
});
