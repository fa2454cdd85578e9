import { describe, expect, it } from "vitest";
import { expectClose, unitRoundoff } from "../../test/compare.js";
import { OptionError, type RopeScaling, ropeFrequencies, ropeTables, scope } from "../index.js";

const close = { rtol: 16 * unitRoundoff.float64 };

describe("ropeFrequencies", () => {
  it("is base^(-2i/dim), divided by the factor of linear scaling", () => {
    // 16^(-0/4) = 1 and 16^(-2/4) = 1/4.
    expectClose(ropeFrequencies(4, { base: 16 }).frequencies, [1, 0.25], close);
    const { frequencies, attentionFactor } = ropeFrequencies(4, { base: 16, scaling: { type: "linear", factor: 2 } });
    expectClose(frequencies, [0.5, 0.125], close);
    expect(attentionFactor).toBe(1);
  });

  it("keeps the highest frequency and divides the lowest with ntk scaling", () => {
    // base' = 16 · 3^(4/2) = 144: frequencies 1 and 144^(-1/2) = 1/12, a third of 1/4.
    const { frequencies } = ropeFrequencies(4, { base: 16, scaling: { type: "ntk", factor: 3 } });
    expectClose(frequencies, [1, 1 / 12], close);
  });

  it("changes nothing with dynamic scaling up to the original length", () => {
    const scaling = { type: "dynamic", factor: 2, originalLength: 8 } as const;
    for (const length of [1, 8])
      expectClose(ropeFrequencies(4, { base: 16, scaling, length }).frequencies, [1, 0.25], close);
    // Twice the length: 2 · 2 − 1 = 3, as ntk with 3.
    expectClose(ropeFrequencies(4, { base: 16, scaling, length: 16 }).frequencies, [1, 1 / 12], close);
  });

  it("clamps YaRN's ramp to the pairs", () => {
    // c(n) = 16 ln(64 / 2πn) / (2 ln 10⁴): c(32) = -0.993…, floor -1, clamped to 0; c(1) = 2.016…, ceil 3. The ramp is i / 3.
    const { frequencies, attentionFactor } = ropeFrequencies(16, {
      scaling: { type: "yarn", factor: 4, originalLength: 64 },
    });
    const plain = ropeFrequencies(16).frequencies;
    const ramp = (i: number) => Math.min(i / 3, 1);
    expectClose(
      frequencies,
      Array.from(plain, (f, i) => (f / 4) * ramp(i) + f * (1 - ramp(i))),
      close,
    );
    expect(attentionFactor).toBeCloseTo(0.1 * Math.log(4) + 1, 14);
  });

  it("leaves the ends of YaRN's ramp between pairs when they aren't truncated, and keeps its ends apart", () => {
    const at = (n: number) => (16 * Math.log(64 / (2 * Math.PI * n))) / (2 * Math.log(10_000));
    const scaling = { type: "yarn", factor: 4, originalLength: 64 } as const;
    const plain = ropeFrequencies(16).frequencies;
    const expected = (ramp: (i: number) => number) =>
      Array.from(plain, (f, i) => (f / 4) * ramp(i) + f * (1 - ramp(i)));
    expectClose(
      ropeFrequencies(16, { scaling: { ...scaling, truncate: false } }).frequencies,
      expected((i) => Math.min(i / at(1), 1)),
      close,
    );
    // Both ends at pair 0 (64 / 2πn < 1): a ramp of width 0.001, 0 at pair 0 and 1 from pair 1 on.
    const { frequencies } = ropeFrequencies(16, { scaling: { ...scaling, betaFast: 12, betaSlow: 11 } });
    expectClose(
      frequencies,
      expected((i) => Math.min(i, 1)),
      close,
    );
  });

  it("blends Llama 3's frequencies between the two wavelengths", () => {
    // Turns within 8π positions are 4 θ: θ = 1 → 4 ≥ 4, kept; 1/2 → 2, kept by a third of (2 − 1) / (4 − 1); 1/4 → 1, interpolated.
    const { frequencies } = ropeFrequencies(6, {
      base: 8,
      scaling: {
        type: "llama3",
        factor: 2,
        originalLength: 8 * Math.PI,
        lowFrequencyFactor: 1,
        highFrequencyFactor: 4,
      },
    });
    expectClose(frequencies, [1, (2 / 3) * 0.25 + (1 / 3) * 0.5, 0.125], close);
  });

  it.each([
    ["an unknown type", { type: "longrope", factor: 2 }, "must be one of linear"],
    ["no factor", { type: "linear" }, "scaling.factor must be a positive number"],
    [
      "an option of another spelling",
      { type: "yarn", factor: 2, originalLength: 8, beta_fast: 3 },
      'has no "beta_fast"',
    ],
    ["an option of another kind", { type: "linear", factor: 2, originalLength: 8 }, 'has no "originalLength"'],
    ["a turn that is no number", { type: "yarn", factor: 2, originalLength: 8, betaFast: "3" }, "scaling.betaFast"],
    ["an attention factor of 0", { type: "yarn", factor: 2, originalLength: 8, attentionFactor: 0 }, "attentionFactor"],
    ["a rounding that is no flag", { type: "yarn", factor: 2, originalLength: 8, truncate: 1 }, "scaling.truncate"],
    ["no original length", { type: "yarn", factor: 2 }, "scaling.originalLength"],
    [
      "frequency factors in the wrong order",
      { type: "llama3", factor: 2, originalLength: 8, lowFrequencyFactor: 4, highFrequencyFactor: 1 },
      "must exceed",
    ],
  ])("refuses %s", (_name, scaling, message) => {
    const call = () => ropeFrequencies(8, { scaling: scaling as RopeScaling });
    expect(call).toThrow(OptionError);
    expect(call).toThrow(message);
  });
});

describe("ropeTables", () => {
  it("enlarges cosines and sines by the attention factor, and grows dynamic scaling with the positions", () => {
    scope(() => {
      const { cos, sin } = ropeTables(3, 4, {
        dtype: "float64",
        scaling: { type: "yarn", factor: 4, originalLength: 64, attentionFactor: 1.5 },
      });
      expectClose(cos.slice(0, 0, 1).dataSync(), [1.5, 1.5], close);
      expectClose(sin.slice(0, 0, 1).dataSync(), [0, 0], close);
      const dynamic = { type: "dynamic", factor: 2, originalLength: 8 } as const;
      const tables = ropeTables(16, 4, { base: 16, dtype: "float64", scaling: dynamic });
      expectClose(tables.sin.slice(0, 1, 2).dataSync(), [Math.sin(1), Math.sin(1 / 12)], close);
    });
  });

  it("gives the rows from any position on as those of the whole table, and right ones far out", () => {
    scope(() => {
      const whole = ropeTables(10_000, 6, { dtype: "float64" });
      for (const [start, count] of [
        [0, 10],
        [4090, 20],
        [8192, 1808],
        [5000, 0],
      ] as const) {
        const { cos, sin } = ropeTables(count, 6, { start, dtype: "float64" });
        expect(cos.dataSync()).toEqual(whole.cos.slice(0, start, start + count).dataSync());
        expect(sin.dataSync()).toEqual(whole.sin.slice(0, start, start + count).dataSync());
      }
      // Angles of 10⁷ are known to 2⁻³⁰ in double precision, whichever way they are made.
      const start = 10_485_700;
      const { cos, sin } = ropeTables(40, 2, { start, dtype: "float64" });
      const angles = Array.from({ length: 40 }, (_, i) => start + i);
      expectClose(cos.dataSync(), angles.map(Math.cos), { rtol: 0, atol: 2 ** -29 });
      expectClose(sin.dataSync(), angles.map(Math.sin), { rtol: 0, atol: 2 ** -29 });
      expect(() => ropeTables(1, 2, { start: -1 })).toThrow("start must be a non-negative integer");
    });
  });
});
