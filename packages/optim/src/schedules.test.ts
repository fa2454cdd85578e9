import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { constant, cosine, join, linear, warmup, wsd } from "./schedules.js";

describe("schedules", () => {
  it("warm up from peak / warmupSteps and reach the peak with the last step of the warm-up", () => {
    // peak 8, 4 steps: 8·1/4, 8·2/4, 8·3/4, 8·4/4
    const schedule = warmup(8, 4);
    expect([0, 1, 2, 3, 4, 100].map(schedule)).toEqual([2, 4, 6, 8, 8, 8]);
  });

  it("linear falls in a straight line after the warm-up and stays at the floor", () => {
    // x = (step − 2) / (10 − 2); 4·(0.5 + 0.5·(1 − x))
    const schedule = linear(4, 10, { warmupSteps: 2, minRatio: 0.5 });
    expect([0, 1, 2, 6, 10, 1000].map(schedule)).toEqual([2, 4, 4, 3, 2, 2]);
  });

  it("cosine is half-way down in the middle", () => {
    const schedule = cosine(2, 100);
    expect(schedule(0)).toBe(2);
    expect(schedule(50)).toBeCloseTo(1, 12);
    expect(schedule(100)).toBeCloseTo(0, 12);
  });

  it("wsd stays at the peak until the decay", () => {
    const schedule = wsd(1, 100, { decayFraction: 0.2, decayShape: "sqrt" });
    expect(schedule(80)).toBe(1);
    expect(schedule(85)).toBeCloseTo(0.5, 12); // 1 − √(5/20)
    expect(schedule(100)).toBe(0);
  });

  it("join gives each part its own count", () => {
    const parts = join([constant(1), (step) => 10 + step, 7], [3, 5]);
    expect([0, 2, 3, 4, 5, 9].map(parts)).toEqual([1, 1, 10, 11, 7, 7]);
  });

  it("stay between floor and peak and never rise after the warm-up", () => {
    const settings = fc.record({
      peak: fc.double({ min: 1e-6, max: 10, noNaN: true }),
      totalSteps: fc.integer({ min: 1, max: 500 }),
      warmupShare: fc.double({ min: 0, max: 1, noNaN: true }),
      minRatio: fc.double({ min: 0, max: 1, noNaN: true }),
    });
    fc.assert(
      fc.property(settings, ({ peak, totalSteps, warmupShare, minRatio }) => {
        const options = { warmupSteps: Math.floor(warmupShare * totalSteps), minRatio };
        for (const schedule of [linear, cosine, wsd].map((make) => make(peak, totalSteps, options))) {
          let last = Number.POSITIVE_INFINITY;
          for (let step = options.warmupSteps; step < totalSteps + 5; step++) {
            const value = schedule(step);
            expect(value).toBeLessThanOrEqual(Math.min(last, peak) * (1 + 1e-12));
            expect(value).toBeGreaterThanOrEqual(peak * minRatio * (1 - 1e-12));
            last = value;
          }
        }
      }),
      { numRuns: 50 },
    );
  });

  it.each([
    [() => cosine(-1, 10), "[cosine] peak must be a number of at least 0; received -1."],
    [() => cosine(1, 0), "[cosine] totalSteps must be an integer of at least 1; received 0."],
    [() => linear(1, 10, { warmupSteps: 11 }), "[linear] warmupSteps (11) must not exceed totalSteps (10)."],
    [() => wsd(1, 10, { decayFraction: 0 }), "[wsd] decayFraction must be a number in (0, 1]; received 0."],
    [() => cosine(1, 10, { minRatio: Number.NaN }), "[cosine] minRatio must be a number in [0, 1]; received NaN."],
    [
      () => cosine(1, 10, { warmup: 3 } as object),
      '[cosine] unknown option "warmup". Known options: warmupSteps, minRatio.',
    ],
    [() => join([1, 2], []), "[join] 2 schedules need 1 boundaries; received 0."],
    [() => join([1, 2, 3], [5, 5]), "[join] boundaries[1] must be an integer of at least 6; received 5."],
  ])("refuse bad input %#", (make, message) => {
    expect(make).toThrow(message);
  });
});
