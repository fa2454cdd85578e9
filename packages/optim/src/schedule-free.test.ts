import { tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { route, ScheduleFreeAdamW } from "./index.js";

const gradAt = (step: number) => Float64Array.from({ length: 5 }, (_, i) => Math.sin(3 * i + 7 * step) + 0.1);
const start = () => Float64Array.of(1, -1, 0.5, 2, -3);
const options = { learningRate: 0.1, warmupSteps: 3, weightDecay: 0.1 };

describe("ScheduleFreeAdamW", () => {
  it("takes two steps by hand", () => {
    // beta1 0.5, beta2 0, eps 0: d = sign(g). Step 1: c = 1, z = 1 − 0.1 = 0.9, x = y = z.
    // Step 2: c = ½, z = 0.8, x = (0.9 + 0.8)/2 = 0.85, y = (0.8 + 0.85)/2.
    const p = Float64Array.of(1);
    const optimizer = new ScheduleFreeAdamW({ p }, { learningRate: 0.1, beta1: 0.5, beta2: 0, eps: 0 });
    optimizer.step({ p: Float64Array.of(3) });
    expect(p[0]).toBeCloseTo(0.9, 14);
    optimizer.step({ p: Float64Array.of(2) });
    expect(p[0]).toBeCloseTo(0.825, 14);
    optimizer.eval();
    expect(p[0]).toBeCloseTo(0.85, 14);
  });

  it("switches between the points of training and evaluation, and back", () => {
    const p = start();
    const optimizer = new ScheduleFreeAdamW({ p }, options);
    optimizer.eval();
    expect(p).toEqual(start()); // before the first step all points are one
    optimizer.train();
    for (let step = 0; step < 5; step++) optimizer.step({ p: gradAt(step) });
    const y = p.slice();
    optimizer.eval();
    optimizer.eval();
    const x = p.slice();
    for (const [i, value] of x.entries()) expect(Math.abs(value - y[i]!)).toBeGreaterThan(1e-6);
    expect(optimizer.training).toBe(false);
    optimizer.train();
    optimizer.train();
    for (const [i, value] of p.entries()) expect(value).toBeCloseTo(y[i]!, 13);
    expect(optimizer.training).toBe(true);
  });

  it("refuses to step while evaluating, and changes nothing", () => {
    const p = start();
    const optimizer = new ScheduleFreeAdamW({ p }, options);
    optimizer.step({ p: gradAt(0) });
    optimizer.eval();
    const before = structuredClone({ p, state: optimizer.stateDict() });
    expect(() => optimizer.step({ p: gradAt(1) })).toThrow("[ScheduleFreeAdamW.step] the parameters are the average x");
    expect(() => optimizer.addParamGroup({ params: { q: start() } })).toThrow("call train()");
    expect({ p, state: optimizer.stateDict() }).toEqual(before);
  });

  it("continues from a checkpoint at x as if it had only gone there and back", () => {
    const straight = start();
    const uninterrupted = new ScheduleFreeAdamW({ p: straight }, options);
    for (let step = 0; step < 4; step++) uninterrupted.step({ p: gradAt(step) });
    uninterrupted.eval();
    const saved = structuredClone({ p: straight, state: uninterrupted.stateDict() });
    uninterrupted.train();
    for (let step = 4; step < 8; step++) uninterrupted.step({ p: gradAt(step) });

    const { p } = saved;
    const resumed = new ScheduleFreeAdamW({ p }, options);
    resumed.loadStateDict({ tensors: saved.state.tensors, meta: JSON.parse(JSON.stringify(saved.state.meta)) });
    expect(resumed.training).toBe(false);
    expect(() => resumed.step({ p: gradAt(4) })).toThrow("call train()");
    resumed.train();
    for (let step = 4; step < 8; step++) resumed.step({ p: gradAt(step) });
    expect(p).toEqual(straight);
    expect(resumed.stateDict()).toEqual(uninterrupted.stateDict());
  });

  it("averages the steps of each group by that group's rates, from its own first step on", () => {
    const [a, b, alone] = [start(), start(), start()];
    const optimizer = new ScheduleFreeAdamW({ a }, options);
    optimizer.step({ a: gradAt(0) });
    optimizer.addParamGroup({ params: { b }, learningRate: 0.02 });
    const single = new ScheduleFreeAdamW({ alone }, { ...options, learningRate: 0.02 });
    for (let step = 1; step < 5; step++) {
      optimizer.step({ a: gradAt(step), b: gradAt(step) });
      single.step({ alone: gradAt(step) });
    }
    optimizer.eval();
    single.eval();
    expect(b).toEqual(alone);
  });

  it("keeps the weights of several in one route apart", () => {
    const run = (from: number, to: number, p: { a: Float64Array; b: Float64Array }, saved?: object) => {
      const optimizer = route(p, [
        { params: ["a"], optimizer: (own) => new ScheduleFreeAdamW(own, options) },
        { optimizer: (own) => new ScheduleFreeAdamW(own, { ...options, learningRate: 0.02 }) },
      ]);
      if (saved) optimizer.loadStateDict(saved as ReturnType<typeof optimizer.stateDict>);
      for (let step = from; step < to; step++) optimizer.step({ a: gradAt(step), b: gradAt(step) });
      return optimizer;
    };
    const straight = { a: start(), b: start() };
    run(0, 6, straight);
    const resumed = { a: start(), b: start() };
    run(3, 6, resumed, structuredClone(run(0, 3, resumed).stateDict()));
    expect(resumed).toEqual(straight);
  });

  it("steps nothing while a rate of 0 leaves nothing to average", () => {
    const p = start();
    const optimizer = new ScheduleFreeAdamW({ p }, { learningRate: (step) => (step < 2 ? 0 : 0.1) });
    for (let step = 0; step < 2; step++) optimizer.step({ p: gradAt(step) });
    expect(p).toEqual(start());
    optimizer.step({ p: gradAt(2) });
    for (const [i, value] of p.entries()) expect(value).not.toBe(start()[i]);
  });

  it("moves the masters of bfloat16 parameters, and rounds them", () => {
    const p = tensor(Float32Array.from(start())).astype("bfloat16");
    const optimizer = new ScheduleFreeAdamW({ p }, options);
    for (let step = 0; step < 3; step++) {
      optimizer.step({ p: tensor(Float32Array.from(gradAt(step))).astype("bfloat16") });
    }
    const master = optimizer.stateDict().tensors["p.master"]!;
    const y = master.dataSync();
    optimizer.eval();
    expect(master.dataSync()).not.toEqual(y);
    expect(p.dataSync()).toEqual(master.astype("bfloat16").dataSync());
  });
});
