import { memory, scope, sub, type Tensor, tensor, valueAndGrad } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { AdamW, Lamb, route, SAM, SGD } from "./index.js";

describe("SAM", () => {
  it("takes a step by hand", () => {
    // f = x²/2 + 2y², g = (3, 4) at (3, 1), ‖g‖ = 5: up to (3 + 0.6, 1 + 0.8), where g = (3.6, 7.2)
    const p = Float64Array.of(3, 1);
    const gradient = () => Float64Array.of(p[0]!, 4 * p[1]!);
    const sam = new SAM(new SGD({ p }, { learningRate: 0.1 }), { rho: 1 });
    sam.ascend({ p: gradient() });
    expect(sam.ascended).toBe(true);
    expect(p[0]).toBeCloseTo(3.6, 11);
    expect(p[1]).toBeCloseTo(1.8, 11);
    sam.step({ p: gradient() });
    expect(sam.ascended).toBe(false);
    expect(p[0]).toBeCloseTo(3 - 0.36, 11);
    expect(p[1]).toBeCloseTo(1 - 0.72, 11);
    expect(sam.base.stepCount).toBe(1);
  });

  it("scales the way uphill by the parameters when adaptive", () => {
    // |p|∘g = (2·3, 1·8) of norm 10: e = p²∘g / 10 = (1.2, 0.8)
    const p = Float64Array.of(-2, 1);
    const sam = new SAM(new SGD({ p }), { rho: 1, adaptive: true });
    sam.ascend({ p: Float64Array.of(3, 8) });
    expect(p[0]).toBeCloseTo(-0.8, 11);
    expect(p[1]).toBeCloseTo(1.8, 11);
    sam.descend();
    expect(p).toEqual(Float64Array.of(-2, 1));
  });

  it("takes the norm over all parameters, and those without a gradient stay", () => {
    const params = { a: Float64Array.of(0), b: Float64Array.of(0), c: Float64Array.of(7) };
    const sam = new SAM(new SGD(params), { rho: 1 });
    sam.ascend({ a: Float64Array.of(3), b: Float64Array.of(4) });
    expect(params.a[0]).toBeCloseTo(0.6, 11);
    expect(params.b[0]).toBeCloseTo(0.8, 11);
    expect(params.c[0]).toBe(7);
  });

  it("calls a function twice, reports the first loss, and leaks nothing", () => {
    const before = memory().tensors;
    const params = { w: tensor([2, -1]) };
    const target = tensor([1, 1]);
    const sam = new SAM(new AdamW(params, { learningRate: 0.05 }), { rho: 0.1 });
    const loss = ({ w }: { w: Tensor }) => sub(w, target).square().sum();
    const losses: number[] = [];
    for (let step = 0; step < 60; step++) {
      scope(() => {
        losses.push(sam.step(() => valueAndGrad(loss, params)).value.itemSync());
      });
    }
    expect(losses[0]).toBe(5);
    expect(losses.at(-1)).toBeLessThan(0.1);
    for (const x of [sam.base, params.w, target]) x.dispose();
    expect(memory().tensors).toBe(before);
  });

  it("wraps optimizers that step by a transform, and bfloat16 parameters", () => {
    const p = tensor([1, 2, -3]).astype("bfloat16");
    const grad = tensor([1, -1, 0.5]).astype("bfloat16");
    const sam = new SAM(new Lamb({ p }, { learningRate: 0.1 }), { rho: 0.5 });
    const before = p.dataSync();
    sam.ascend({ p: grad });
    expect(p.dataSync()).not.toEqual(before);
    sam.descend();
    expect(p.dataSync()).toEqual(before);
    sam.ascend({ p: grad });
    sam.step({ p: grad });
    const plain = tensor([1, 2, -3]).astype("bfloat16");
    new Lamb({ p: plain }, { learningRate: 0.1 }).step({ p: grad });
    expect(p.dataSync()).toEqual(plain.dataSync());
  });

  it("wraps a route", () => {
    const p = { a: Float64Array.of(3), b: Float64Array.of(4) };
    const routed = route(p, [
      { params: ["a"], optimizer: (own) => new SGD(own, { learningRate: 0.1 }) },
      { optimizer: (own) => new SGD(own, { learningRate: 0.2 }) },
    ]);
    const sam = new SAM(routed, { rho: 1 });
    sam.ascend({ a: p.a.slice(), b: p.b.slice() });
    expect(p.a[0]).toBeCloseTo(3.6, 11);
    sam.step({ a: Float64Array.of(1), b: Float64Array.of(1) });
    expect([p.a[0], p.b[0]]).toEqual([2.9, 3.8]);
  });

  it.each([[Number.NaN], [Number.POSITIVE_INFINITY], [0]])("stays where it is with gradients of %d", (bad) => {
    const p = Float32Array.of(1, 2);
    const sam = new SAM(new SGD({ p }), {});
    sam.ascend({ p: Float32Array.of(bad, 0) });
    expect(p).toEqual(Float32Array.of(1, 2));
  });

  it("puts the parameters back if the second gradient or the step fails", () => {
    const p = Float64Array.of(3, 1);
    const sam = new SAM(new SGD({ p }), {});
    let calls = 0;
    const take = () => {
      if (++calls === 2) throw new Error("out of data");
      return { grads: { p: Float64Array.of(1, 1) } };
    };
    expect(() => sam.step(take)).toThrow("out of data");
    expect(p).toEqual(Float64Array.of(3, 1));
    sam.ascend({ p: Float64Array.of(1, 1) });
    expect(() => sam.step({ p: new Float64Array(3) })).toThrow("must have shape [2]");
    expect(p).toEqual(Float64Array.of(3, 1));
    expect(sam.ascended).toBe(false);
  });

  it("refuses calls out of turn and what it doesn't know", () => {
    const p = Float64Array.of(3);
    const base = new SGD({ p });
    for (const rho of [0, -1, Number.NaN]) expect(() => new SAM(base, { rho })).toThrow("[SAM] rho must be");
    expect(() => new SAM(base, { radius: 1 } as object)).toThrow('unknown option "radius"');
    const sam = new SAM(base);
    expect(() => sam.step({ p })).toThrow("call ascend(grads) first");
    expect(() => sam.ascend({ q: p })).toThrow('no parameter "q"');
    expect(() => sam.ascend(null as never)).toThrow("[SAM.ascend] expected gradients by name");
    expect(() => sam.step((() => undefined) as never)).toThrow("[SAM.step] expected a function that returns { grads }");
    expect(() => sam.step((async () => ({ grads: { p } })) as never)).toThrow("received one that returns a Promise");
    expect(() => new SAM(null as never)).toThrow(
      "[SAM] the base must be an optimizer of @llmeff/optim; received null.",
    );
    expect(() => new SAM(base, null as never)).toThrow("[SAM] options must be an object; received null.");
    expect(() => sam.ascend({ p: new Float64Array(2) })).toThrow("received a Float64Array of 2 elements");
    sam.ascend({ p: Float64Array.of(1) });
    expect(() => sam.ascend({ p: Float64Array.of(1) })).toThrow("are uphill");
    expect(() => sam.step(undefined as never)).toThrow("[SAM.step] expected gradients by name");
    expect(sam.ascended).toBe(true);
  });
});
