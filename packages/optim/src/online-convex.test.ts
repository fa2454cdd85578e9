import { eigh, eye, greater, type Tensor, tensor, where } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { expectClose, random } from "../test/matrices.js";
import { type GradientTransformation, OnlineConvex, onlineConvex, RfdSon, rfdSon, scaleByRfdSon } from "./index.js";

const several = (count: number, size: number) => Array.from({ length: count }, (_, i) => random(i, [size]));

function after(transform: GradientTransformation, grads: readonly Tensor[]): Tensor {
  let state = transform.init(grads[0]!);
  let last = grads[0]!;
  for (const g of grads) ({ updates: last, state } = transform.update(g, state, g));
  return last;
}

/** `Σ c_t² g_t g_tᵀ` */
function momentOf(grads: readonly Tensor[], weight: (t: number) => number): Tensor {
  return grads
    .map((g, i) =>
      g
        .unsqueeze(1)
        .matmul(g.unsqueeze(0))
        .mul(weight(i + 1) ** 2),
    )
    .reduce((sum, x) => sum.add(x));
}

describe("onlineConvex", () => {
  it("sAdagrad with room for all gradients is full-matrix AdaGrad", () => {
    const grads = several(3, 6);
    const { values, vectors } = eigh(momentOf(grads, () => 1));
    const kept = greater(values, values.max().mul(1e-9));
    const root = vectors.mul(where(kept, where(kept, values, 1).pow(-0.5), 0)).matmul(vectors.T);
    const u = after(onlineConvex(0.5, { algorithm: "sAdagrad", sketchSize: 5 }), grads);
    expectClose(u, root.matmul(grads[2]!).mul(-0.5), 1e-9);
  });

  it.each([
    ["rfdSon", (t: number) => 1 / Math.sqrt(t * 0.5)],
    ["fdSon", (t: number) => 1 / Math.sqrt(Math.sqrt(t) * 0.5)],
  ] as const)("%s with room for all gradients solves the Newton equation", (algorithm, weight) => {
    const grads = several(3, 6);
    const u = after(onlineConvex(0.5, { algorithm, sketchSize: 5, delta: 0.1 }), grads);
    const matrix = momentOf(grads, weight).add(eye(6, undefined, { dtype: "float64" }).mul(0.1));
    expectClose(matrix.matmul(u).neg(), grads[2]!, 1e-9);
  });

  it("ogd and adagrad by hand", () => {
    const g = tensor(Float64Array.of(3, -4, 0));
    // lr/√(t + delta) = 1/√(1 + 3); then signs times lr, and 0 where no gradient was seen.
    expectClose(after(onlineConvex(1, { algorithm: "ogd", delta: 3 }), [g]), g.mul(-0.5), 1e-15);
    expectClose(after(onlineConvex(0.5, { algorithm: "adagrad" }), [g]), tensor(Float64Array.of(-0.5, 0.5, 0)), 1e-15);
  });

  it("deflates a vector of one number away", () => {
    const g = tensor(Float64Array.of(2));
    // e = 0 and α = delta: 1/0.5 of the gradient.
    expectClose(after(onlineConvex(1, { algorithm: "fdSon", delta: 0.5 }), [g, g]), tensor(Float64Array.of(-4)), 1e-15);
    // α = Σ g² = 8.
    expectClose(after(onlineConvex(1), [g, g]), tensor(Float64Array.of(-2 / Math.sqrt(8))), 1e-15);
  });

  it.each([
    ["sAdagrad", 0],
    ["adaFd", 0.5],
    ["ogd", 0],
    ["adagrad", 0],
    ["rfdSon", 0],
    ["rfdSon", 0.5],
    ["fdSon", 0.5],
  ] as const)("%s, delta %f, steps by lr times what it steps at rate 1", (algorithm, delta) => {
    // The sketches of Newton's kind hold gradients over √lr, so lr · delta stands for delta.
    const isNewton = algorithm === "rfdSon" || algorithm === "fdSon";
    const grads = several(7, 6);
    const u = after(onlineConvex(0.03, { algorithm, sketchSize: 3, delta }), grads);
    const one = after(onlineConvex(1, { algorithm, sketchSize: 3, delta: isNewton ? 0.03 * delta : delta }), grads);
    expectClose(u, one.mul(0.03), 1e-9);
  });

  it.each(["sAdagrad", "rfdSon", "fdSon", "adaFd", "ogd", "adagrad"] as const)(
    "%s decays apart from its step",
    (algorithm) => {
      const options = { algorithm, delta: 0.5 };
      const [g, w] = [random(1, [6]), random(2, [6])];
      const step = (transform: GradientTransformation) => transform.update(g, transform.init(w), w).updates as Tensor;
      const plain = step(onlineConvex(0.3, options));
      // lr · weightDecay = 0.06
      expectClose(step(onlineConvex(0.3, { ...options, weightDecay: 0.2 })), plain.sub(w.mul(0.06)), 1e-12);
      expectClose(step(onlineConvex(0.3, { ...options, weightDecay: 0.2, mask: () => false })), plain, 0);
      const param = w.clone();
      new OnlineConvex({ w: param }, { ...options, learningRate: 0.3, weightDecay: 0.2 }).step({ w: g });
      expectClose(param, w.mul(0.94).add(plain), 1e-12);
    },
  );

  it("refuses what is outside its domain", () => {
    expect(() => onlineConvex(0.1, { algorithm: "adaFd" })).toThrow(
      "[onlineConvex] delta must be a positive number; received 0.",
    );
    expect(() => onlineConvex(0.1, { weightDecay: -1 })).toThrow(
      "[onlineConvex] weightDecay must be a number of at least 0; received -1.",
    );
    expect(() => onlineConvex(0.1, { sketchSize: 0 })).toThrow(
      "[onlineConvex] sketchSize must be an integer of at least 1; received 0.",
    );
  });

  it.each(["rfdSon", "fdSon"] as const)("%s with the learning rate 0 stands still and learns nothing", (algorithm) => {
    const grads = several(2, 4);
    const warm = (step: number) => (step === 0 ? 0 : 0.5);
    const u = after(onlineConvex(warm, { algorithm, delta: 0.1 }), grads);
    // The second gradient is the first that enters, with the weight of step 2.
    const weight = algorithm === "rfdSon" ? 1 / (2 * 0.5) : 1 / (Math.SQRT2 * 0.5);
    expectClose(u, grads[1]!.div(grads[1]!.square().sum().mul(weight).add(0.1)).neg(), 1e-12);
    expectClose(after(onlineConvex(0, { algorithm, delta: 0.1 }), grads), grads[0]!.mul(0), 0);
  });

  it.each(["sAdagrad", "rfdSon", "adagrad"] as const)("%s learns a logistic regression from a stream", (algorithm) => {
    const truth = [1.5, -2, 0.5, 1];
    const transform = onlineConvex(0.5, { algorithm, delta: algorithm === "rfdSon" ? 1 : 0, sketchSize: 3 });
    let w = tensor(new Float64Array(4));
    let state = transform.init(w);
    let mistakes = 0;
    for (let t = 0; t < 400; t++) {
      const x = Array.from(random(t, [4]).dataSync());
      const y = x.reduce((sum, value, i) => sum + value * truth[i]!, 0) > 0 ? 1 : -1;
      const values = w.dataSync();
      const margin = y * x.reduce((sum, value, i) => sum + value * values[i]!, 0);
      if (t >= 200 && margin <= 0) mistakes++;
      const slope = -y / (1 + Math.exp(margin));
      const result = transform.update(tensor(Float64Array.from(x, (value) => slope * value)), state, w);
      [w, state] = [w.add(result.updates), result.state];
    }
    expect(mistakes).toBeLessThan(20);
  });
});

describe("scaleByRfdSon", () => {
  it("with room for all gradients is the inverse of what it has seen, applied to their average", () => {
    const grads = several(3, 6);
    const u = after(scaleByRfdSon({ rank: 4, alpha: 0.1, beta1: 0.9 }), grads);
    const matrix = momentOf(grads, (t) => Math.sqrt(1 / 8 + 1 / t)).add(
      eye(6, undefined, { dtype: "float64" }).mul(0.1),
    );
    const mean = grads.reduce((m, g) => m.mul(0.9).add(g.mul(0.1)), grads[0]!.mul(0));
    expectClose(matrix.matmul(u), mean, 1e-10);
  });

  it("adds half of what it cuts to the diagonal", () => {
    // Orthogonal gradients 3 e₁ and √8 e₂ of weights √(9/8), √(5/8): σ² = 81/8 and 5; rank 1 cuts 5, keeps 41/8, α = 0.1 + 2.5.
    const grads = [tensor(Float64Array.of(3, 0, 0)), tensor(Float64Array.of(0, Math.sqrt(8), 0))];
    const u = after(scaleByRfdSon({ rank: 1, beta1: 0 }), grads);
    expectClose(u, tensor(Float64Array.of(0, Math.sqrt(8) / 2.6, 0)), 1e-12);
    const again = after(scaleByRfdSon({ rank: 1, beta1: 0.5 }), grads);
    expectClose(again, tensor(Float64Array.of(0.75 / (41 / 8 + 2.6), Math.sqrt(8) / 2 / 2.6, 0)), 1e-12);
  });

  it("refuses what is outside its domain", () => {
    expect(() => rfdSon(0.1, { alpha: 0 })).toThrow("[scaleByRfdSon] alpha must be a positive number; received 0.");
    expect(() => new RfdSon({ w: new Float32Array(3) }, { rank: 1.5 })).toThrow(
      "[RfdSon] rank must be an integer of at least 1; received 1.5.",
    );
  });
});
