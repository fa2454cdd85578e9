import { OptionError } from "@llmeff/native/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Axis } from "../model.js";
import { makeScale } from "./scale.js";

const labels = (axis: Partial<Axis>, values: number[], nice = true) =>
  makeScale({ label: "x", ...axis }, values, { count: 6, nice }).ticks.map((tick) => tick.label);

describe("makeScale", () => {
  it("puts linear ticks at round numbers", () => {
    expect(labels({}, [1.43, 2.38])).toEqual(["1.4", "1.6", "1.8", "2.0", "2.2", "2.4"]);
    expect(labels({}, [0, 12_288_000])).toEqual(["0", "2M", "4M", "6M", "8M", "10M", "12M", "14M"]);
    expect(labels({}, [-1, 1])).toEqual(["−1.0", "−0.5", "0", "0.5", "1.0"]);
    expect(labels({ style: "percent", min: 0, max: 1 }, [0.1])).toEqual([
      "0 %",
      "20 %",
      "40 %",
      "60 %",
      "80 %",
      "100 %",
    ]);
    expect(labels({}, [0, 3e-7])).toEqual([
      "0",
      "5.0 × 10⁻⁸",
      "1.0 × 10⁻⁷",
      "1.5 × 10⁻⁷",
      "2.0 × 10⁻⁷",
      "2.5 × 10⁻⁷",
      "3.0 × 10⁻⁷",
    ]);
  });

  it("puts log ticks at powers, at 1-2-5 or at round steps, by the length of the axis", () => {
    expect(labels({ scale: "log" }, [1e-5, 1e9], false)).toEqual(["10⁻⁵", "0.01", "10", "10⁴", "10⁷"]);
    expect(labels({ scale: "log" }, [1, 1000], false)).toEqual(["1", "10", "100", "1000"]);
    expect(labels({ scale: "log" }, [8e5, 1.2e7], false)).toEqual(["1M", "2M", "5M", "10M"]);
    expect(labels({ scale: "log" }, [1.5, 3.9], false)).toEqual(["1.5", "2.0", "2.5", "3.0", "3.5"]);
  });

  it("puts ticks of a log2 axis at powers of two, as many as fit", () => {
    expect(labels({ scale: "log2" }, [4096, 131_072], false)).toEqual(["4k", "8k", "16k", "32k", "64k", "128k"]);
    expect(labels({ scale: "log2" }, [1000, 10_485_760], false)).toEqual(["1k", "8k", "64k", "512k", "4M"]);
    expect(labels({ scale: "log2" }, [600, 900], false)).toEqual(["600", "650", "700", "750", "800", "850", "900"]);
  });

  it("maps equal ratios to equal lengths on a log axis", () => {
    const scale = makeScale({ label: "x", scale: "log" }, [1, 10_000], { count: 5, nice: false });
    expect([1, 10, 100, 10_000].map(scale.position)).toEqual([0, 0.25, 0.5, 1].map((v) => expect.closeTo(v, 12)));
    expect(scale.position(0)).toBeNaN();
  });

  it("keeps every value and tick inside, with two ticks or more, for any data", () => {
    const value = fc.double({ min: 1e-9, max: 1e15, noNaN: true });
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 9 }), fc.boolean(), fc.boolean(), (values, log, nice) => {
        const scale = makeScale({ label: "x", scale: log ? "log" : "linear" }, values, { count: 5, nice });
        for (const v of values) expect(Math.abs(scale.position(v) - 0.5)).toBeLessThanOrEqual(0.5 + 1e-6);
        for (const tick of scale.ticks) expect(Math.abs(tick.position - 0.5)).toBeLessThanOrEqual(0.5 + 1e-6);
        expect(scale.ticks.length).toBeGreaterThanOrEqual(2);
        expect(scale.ticks.length).toBeLessThanOrEqual(14);
      }),
      { examples: [[[999999999999997.9, 999999999999997.8], false, false]] },
    );
  });

  it("has an axis for no data, one value, and nothing but NaN", () => {
    for (const values of [[], [3], [0], [-2], [Number.NaN]]) {
      for (const scale of ["linear", "log"] as const) {
        const { domain } = makeScale({ label: "x", scale }, values, { count: 5, nice: true });
        expect(domain[0]).toBeLessThan(domain[1]);
      }
    }
  });

  it("refuses limits that make no interval", () => {
    expect(() => labels({ min: 2, max: 1 }, [1])).toThrow(OptionError);
    expect(() => labels({ min: 0, scale: "log" }, [1, 2])).toThrow(/cannot run from 0 to 2.*both positive/);
  });
});
