import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatCompact, formatDuration, formatNumber, formatScientific } from "./format.js";

describe("formatNumber", () => {
  it.each([
    [1234567, "integer", undefined, "1,234,567"],
    [-1234.5, "fixed", 1, "-1,234.5"],
    [0.012345, "auto", undefined, "0.0123"],
    [12.345, "auto", undefined, "12.3"],
    [4096, "auto", undefined, "4,096"],
    [0.956, "percent", undefined, "95.6 %"],
    [Number.NaN, "auto", undefined, "NaN"],
    [Number.NEGATIVE_INFINITY, "compact", undefined, "-∞"],
  ] as const)("%d as %s (%s digits) is %s", (value, style, digits, text) => {
    expect(formatNumber(value, style, digits)).toBe(text);
  });
});

describe("formatCompact", () => {
  it.each([
    [0, "0"],
    [999, "999"],
    [1000, "1.00k"],
    [12_288_000, "12.3M"],
    [999_499, "999k"],
    [999_950, "1.00M"],
    [7e9, "7.00B"],
    [3.2e14, "320T"],
  ])("%d is %s", (value, text) => {
    expect(formatCompact(value)).toBe(text);
  });

  it("stays within half a unit of the third digit", () => {
    const units: Record<string, number> = { k: 1e3, M: 1e6, B: 1e9, T: 1e12 };
    fc.assert(
      fc.property(fc.double({ min: 1, max: 9e14, noNaN: true }), (value) => {
        const text = formatCompact(value);
        const back = Number.parseFloat(text) * (units[text.at(-1)!] ?? 1);
        expect(Math.abs(back - value)).toBeLessThanOrEqual(0.00501 * value);
      }),
    );
  });
});

describe("formatScientific", () => {
  it("writes the exponent in superscript", () => {
    expect(formatScientific(6.1e13)).toBe("6.10 × 10¹³");
    expect(formatScientific(2.5e-7, 1)).toBe("2.5 × 10⁻⁷");
    expect(formatScientific(3, 0)).toBe("3");
  });
});

describe("formatDuration", () => {
  it.each([
    [0, "0.0 s"],
    [9.96, "10 s"],
    [59.4, "59 s"],
    [59.7, "1m 00s"],
    [185, "3m 05s"],
    [3599.6, "1h 00m"],
    [90_000, "1d 01h"],
    [Number.POSITIVE_INFINITY, "–"],
  ])("%d seconds are %s", (seconds, text) => {
    expect(formatDuration(seconds)).toBe(text);
  });
});
