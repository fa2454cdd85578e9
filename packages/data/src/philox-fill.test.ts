import { OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fillNormal, fillUniform } from "./philox-fill.js";

// Block 0 of seed 0, stream 0 (the known answer of philox.test.ts).
const WORDS = [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8] as const;

describe("fillUniform", () => {
  it("takes 24 bits of one word for a float32 and 53 bits of two words for a float64", () => {
    // 0x6627e8 / 2^24 = 6694888 / 16777216
    expect(fillUniform(new Float32Array(1), { seed: 0 })[0]).toBe(6694888 / 16777216);
    const [first, second] = fillUniform(new Float64Array(2), { seed: 0 });
    expect(first).toBe(((WORDS[0] >>> 5) * 2 ** 26 + (WORDS[1] >>> 6)) / 2 ** 53);
    expect(second).toBe(((WORDS[2] >>> 5) * 2 ** 26 + (WORDS[3] >>> 6)) / 2 ** 53);
  });

  it("is in [0, 1) with the mean and variance of the uniform distribution", () => {
    const values = fillUniform(new Float32Array(40_000), { seed: 1, stream: 2 });
    expect(values.every((value) => value >= 0 && value < 1)).toBe(true);
    const { mean, variance } = moments(values);
    // Five standard errors: sqrt(1/12/N) and sqrt(1/180/N).
    expect(Math.abs(mean - 1 / 2)).toBeLessThan(5 * Math.sqrt(1 / 12 / values.length));
    expect(Math.abs(variance - 1 / 12)).toBeLessThan(5 * Math.sqrt(1 / 180 / values.length));
  });
});

describe("fillNormal", () => {
  it("is Box–Muller on the pairs of a block", () => {
    const values = fillNormal(new Float64Array(4), { seed: 0 });
    const u = WORDS.map((word) => (word + 0.5) / 2 ** 32);
    for (const pair of [0, 2]) {
      const radius = Math.sqrt(-2 * Math.log(u[pair]!));
      expect(values[pair]).toBe(radius * Math.cos(2 * Math.PI * u[pair + 1]!));
      expect(values[pair + 1]).toBe(radius * Math.sin(2 * Math.PI * u[pair + 1]!));
    }
  });

  it("has mean 0, variance 1 and the tail of the normal distribution", () => {
    const values = fillNormal(new Float64Array(40_000), { seed: 3 });
    const { mean, variance } = moments(values);
    expect(Math.abs(mean)).toBeLessThan(5 / Math.sqrt(values.length));
    expect(Math.abs(variance - 1)).toBeLessThan(5 * Math.sqrt(2 / values.length));
    // P(|z| > 1.96) = 0.05
    const tail = values.filter((value) => Math.abs(value) > 1.959964).length / values.length;
    expect(Math.abs(tail - 0.05)).toBeLessThan(5 * Math.sqrt((0.05 * 0.95) / values.length));
  });
});

describe("fillUniform and fillNormal", () => {
  it("give an element the same value however the array is cut", () => {
    fc.assert(
      fc.property(
        fc.nat(40),
        fc.nat(40),
        fc.constantFrom(fillUniform, fillNormal),
        fc.boolean(),
        (at, length, fill, wide) => {
          const make = (count: number) => (wide ? new Float64Array(count) : new Float32Array(count));
          const whole = fill(make(at + length), { seed: 9, stream: 4 });
          const part = fill(make(length), { seed: 9, stream: 4, offset: at });
          expect(part).toEqual(whole.slice(at));
        },
      ),
    );
  });

  it("refuse a negative or fractional offset", () => {
    for (const offset of [-1, 0.5, Number.NaN]) {
      expect(() => fillUniform(new Float32Array(1), { seed: 0, offset })).toThrow(OptionError);
    }
  });
});

function moments(values: Float32Array | Float64Array): { mean: number; variance: number } {
  let sum = 0;
  let squares = 0;
  for (const value of values) {
    sum += value;
    squares += value * value;
  }
  const mean = sum / values.length;
  return { mean, variance: squares / values.length - mean * mean };
}
