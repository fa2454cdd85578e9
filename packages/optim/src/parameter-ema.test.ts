import { FormatError } from "@llmeff/native";
import { memory, type Tensor, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { AdamW, ParameterEma } from "./index.js";

const values = (x: Tensor) => Array.from(x.dataSync());

describe("ParameterEma", () => {
  it("averages, swaps and restores (tensors and arrays alike)", () => {
    const array = { p: Float64Array.of(8, 0) };
    const own = tensor(Float64Array.of(8, 0));
    const averages = [new ParameterEma(array, { decay: 0.5 }), new ParameterEma({ p: own }, { decay: 0.5 })];
    array.p.set([4, 2]);
    const grad = tensor(Float64Array.of(1, -1));
    new AdamW({ p: own }, { beta1: 0, beta2: 0, eps: 0, weightDecay: 0, learningRate: 4 }).step({ p: grad });
    for (const average of averages) average.update(); // 0.5·8 + 0.5·4, 0.5·0 + 0.5·(2 or 4)
    for (const average of averages) average.swap();
    expect([Array.from(array.p), values(own)]).toEqual([
      [6, 1],
      [6, 2],
    ]);
    for (const average of averages) average.restore();
    expect([Array.from(array.p), values(own)]).toEqual([
      [4, 2],
      [4, 4],
    ]);
    expect(averages.map((average) => [average.count, average.stateBytes()])).toEqual([
      [1, 16],
      [1, 16],
    ]);
  });

  it("forgets its start when debiased", () => {
    const params = { p: Float64Array.of(100) };
    const average = new ParameterEma(params, { decay: 0.9, debias: true });
    expect(() => average.swap()).toThrow("has no value before the first update()");
    params.p[0] = 3;
    average.update();
    average.swap();
    expect(params.p[0]).toBeCloseTo(3, 14);
    average.restore();
    params.p[0] = 5;
    average.update();
    average.swap();
    expect(params.p[0]).toBeCloseTo((0.9 * 0.1 * 3 + 0.1 * 5) / (1 - 0.81), 14);
  });

  it("averages bfloat16 parameters in float32, and restores their bits", () => {
    const p = tensor([1, 2, 3]).astype("bfloat16");
    const average = new ParameterEma({ p }, { decay: 0.999 });
    const before = values(p);
    average.update();
    expect(average.stateDict().tensors.p!.dtype).toBe("float32");
    average.swap();
    average.restore();
    expect(values(p)).toEqual(before);
  });

  it("continues from a saved average, and refuses a foreign one whole", () => {
    const make = (debias: boolean) => new ParameterEma({ a: Float32Array.of(1), b: Float32Array.of(2) }, { debias });
    const [first, second] = [make(false), make(false)];
    first.update();
    const { tensors, meta } = first.stateDict();
    second.loadStateDict({ tensors, meta: JSON.parse(JSON.stringify(meta)) });
    expect(second.count).toBe(1);
    for (const [saved, message] of [
      [make(true).stateDict(), "with debias false; received"],
      [{ ...first.stateDict(), tensors: { a: Float32Array.of(9) } }, '"b" must be Float32Array of 1 elements'],
      [
        { ...first.stateDict(), tensors: { ...first.stateDict().tensors, c: Float32Array.of(9) } },
        '"c" must be undefined',
      ],
      [undefined, "expected a parameter-ema of format 1 with debias false; received undefined."],
      [null, "expected a parameter-ema of format 1 with debias false; received undefined."],
      [{ meta: first.stateDict().meta }, 'expected arrays by name in "tensors"; received undefined.'],
      [{ ...first.stateDict(), meta: { ...first.stateDict().meta, count: -1 } }, "meta.count must be"],
    ] as const) {
      expect(() => second.loadStateDict(saved as never)).toThrow(FormatError);
      expect(() => second.loadStateDict(saved as never)).toThrow(message);
    }
    expect(second.stateDict()).toEqual(first.stateDict());
  });

  it("loads nothing of a state of which a tensor was disposed", () => {
    const make = (value: number) => new ParameterEma({ a: tensor([value]), b: tensor([value]) });
    const [average, other] = [make(1), make(2)];
    const saved = other.stateDict();
    saved.tensors.b!.dispose();
    expect(() => average.loadStateDict(saved)).toThrow('[ParameterEma.loadStateDict] "b" was disposed.');
    expect(average.stateDict().tensors.a!.itemSync()).toBe(1);
  });

  it("refuses calls out of order and options outside their domain", () => {
    const params = { p: Float32Array.of(1) };
    const average = new ParameterEma(params);
    expect(() => average.restore()).toThrow("[ParameterEma.restore] the parameters are in their place");
    average.swap();
    expect(() => average.swap()).toThrow("[ParameterEma.swap] the average is in the place");
    expect(() => average.update()).toThrow("[ParameterEma.update] the average is in the place");
    expect(() => new ParameterEma(params, { decay: 1 })).toThrow("decay must be a number in [0, 1); received 1.");
    expect(() => new ParameterEma(null as never)).toThrow("[ParameterEma] expected parameters by name");
    expect(() => new ParameterEma(params, null as never)).toThrow("[ParameterEma] options must be an object");
    expect(() => new ParameterEma({})).toThrow("[ParameterEma] expected at least one parameter");
  });

  it("leaks nothing", () => {
    const p = tensor([1, 2, 3]);
    const before = memory().tensors;
    const average = new ParameterEma({ p }, { debias: true });
    for (let i = 0; i < 3; i++) {
      average.update();
      average.swap();
      average.restore();
    }
    expect(memory().tensors).toBe(before + 1);
    average.dispose();
    expect(memory().tensors).toBe(before);
  });
});
