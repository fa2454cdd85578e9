import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  algoperfCosine,
  algoperfLinear,
  cosine,
  cosineRestarts,
  exponential,
  inverseSqrt,
  linear,
  oneCycle,
  piecewiseConstant,
  piecewiseLinear,
  polynomial,
  type Schedule,
  wsd,
} from "./index.js";

const close = (x: number) => expect.closeTo(x, 12);

describe("algoperfCosine and algoperfLinear", () => {
  // Values of an independent reference for peak 0.01, 200 steps and a warm-up of 5 %; the linear one decays over 90 % to 1 %.
  const steps = [0, 1, 5, 10, 11, 50, 105, 150, 181, 182, 199, 200];
  const references = {
    cosine: [
      0, 0.001, 0.005, 0.01, 0.009999316524962346, 0.008945702546981968, 0.005, 0.0016135921418712956,
      0.00024471741852423234, 0.0002198210923282118, 6.834750376549792e-7, 0,
    ],
    linear: [
      0, 0.001, 0.005, 0.01, 0.009942105263157894, 0.00768421052631579, 0.0045, 0.0018947368421052633, 0.0001, 0.0001,
      0.0001, 0.0001,
    ],
  };

  it.each<[keyof typeof references, Schedule]>([
    ["cosine", algoperfCosine(0.01, 200)],
    ["linear", algoperfLinear(0.01, 200, { decayStepsFactor: 0.9, endFactor: 0.01 })],
  ])("%s is the reference's", (name, schedule) => {
    for (const [i, step] of steps.entries()) {
      expect(Math.abs(schedule(step) - references[name][i]!), `step ${step}`).toBeLessThan(1e-16);
    }
  });
});

describe("worked examples", () => {
  it("cosineRestarts begins anew, with longer periods and lower peaks", () => {
    const schedule = cosineRestarts(8, 2, { warmupSteps: 2, periodFactor: 2, peakFactor: 0.5 });
    // warm-up 4, 8 | 8·1, 8·½ | 4·1, …, 4·½, … | 2
    expect([0, 1, 2, 3, 4, 6, 8].map(schedule)).toEqual([4, 8, 8, 4, 4, 2, 2].map(close));
    const equal = cosineRestarts(1, 10, { minRatio: 0.5 });
    expect([0, 5, 10, 15, 1_000_000_005].map(equal)).toEqual([1, 0.75, 1, 0.75, 0.75].map(close));
  });

  it("oneCycle meets start, peak and end", () => {
    for (const shape of ["cosine", "linear"] as const) {
      const schedule = oneCycle(1, 100, { warmupFraction: 0.2, startDivisor: 10, endDivisor: 100, shape });
      expect([0, 19, 99, 1000].map(schedule)).toEqual([0.1, 1, 0.001, 0.001].map(close));
      expect(schedule(9.5)).toBeCloseTo(0.55, 12);
      expect(schedule(59)).toBeCloseTo(0.5005, 12);
    }
  });

  it("piecewiseConstant and piecewiseLinear follow their lists", () => {
    expect([0, 4, 5, 9, 10, 99].map(piecewiseConstant([3, 2, 1], [5, 10]))).toEqual([3, 3, 2, 2, 1, 1]);
    const line = piecewiseLinear([
      [2, 1],
      [4, 5],
      [14, 0],
    ]);
    expect([0, 2, 3, 4, 9, 14, 20].map(line)).toEqual([1, 1, 3, 5, 2.5, 0, 0]);
  });

  it("polynomial and exponential fall by their rule", () => {
    // x = (6 − 2) / 8: 4·(0.5 + 0.5·(1 − 0.5)²)
    expect(polynomial(4, 10, { warmupSteps: 2, power: 2, minRatio: 0.5 })(6)).toBe(2.5);
    expect([0, 1, 2, 4, 5].map(exponential(8, 0.25, { decaySteps: 4, warmupSteps: 1 }))).toEqual(
      [8, 8, 8 * 0.25 ** 0.25, 8 * 0.25 ** 0.75, 2].map(close),
    );
    expect([0, 3, 4, 8, 12].map(exponential(8, 0.5, { decaySteps: 4, staircase: true, minRatio: 0.25 }))).toEqual([
      8, 8, 4, 2, 2,
    ]);
  });
});

describe("properties", () => {
  const settings = fc.record({
    peak: fc.double({ min: 1e-4, max: 10, noNaN: true }),
    totalSteps: fc.integer({ min: 20, max: 400 }),
    warmupSteps: fc.integer({ min: 0, max: 10 }),
    minRatio: fc.double({ min: 0, max: 1, noNaN: true }),
  });
  type Setting = { peak: number; totalSteps: number; warmupSteps: number; minRatio: number };

  /** Each with the greatest slope that it has after its warm-up, as a share of peak / totalSteps. */
  const continuous: Record<string, (s: Setting) => { schedule: Schedule; slope: number; end?: number }> = {
    linear: ({ peak, totalSteps, ...options }) => ({
      schedule: linear(peak, totalSteps, options),
      slope: totalSteps / (totalSteps - options.warmupSteps),
      end: peak * options.minRatio,
    }),
    cosine: ({ peak, totalSteps, ...options }) => ({
      schedule: cosine(peak, totalSteps, options),
      slope: (Math.PI / 2) * (totalSteps / (totalSteps - options.warmupSteps)),
      end: peak * options.minRatio,
    }),
    polynomial: ({ peak, totalSteps, ...options }) => ({
      schedule: polynomial(peak, totalSteps, { ...options, power: 3 }),
      slope: 3 * (totalSteps / (totalSteps - options.warmupSteps)),
      end: peak * options.minRatio,
    }),
    wsd: ({ peak, totalSteps, minRatio }) => ({
      schedule: wsd(peak, totalSteps, { minRatio, decayFraction: 0.25 }),
      slope: 4,
      end: peak * minRatio,
    }),
    oneCycle: ({ peak, totalSteps }) => ({
      schedule: oneCycle(peak, totalSteps),
      slope: (Math.PI / 2) * (totalSteps / Math.min(0.3 * totalSteps - 1, 0.7 * totalSteps)),
      end: peak / 25 / 1e4,
    }),
    algoperfCosine: ({ peak, totalSteps }) => ({
      schedule: algoperfCosine(peak, totalSteps, { warmupFactor: 0.1 }),
      slope: 10,
      end: 0,
    }),
    algoperfLinear: ({ peak, totalSteps }) => ({
      schedule: algoperfLinear(peak, totalSteps, { warmupFactor: 0.1, endFactor: 0.25 }),
      slope: 10,
      end: peak / 4,
    }),
    exponential: ({ peak, totalSteps, ...options }) => ({
      schedule: exponential(peak, 0.5, { ...options, decaySteps: totalSteps }),
      slope: Math.LN2,
    }),
    inverseSqrt: ({ peak, totalSteps, warmupSteps }) => ({
      schedule: inverseSqrt(peak, warmupSteps),
      slope: totalSteps,
    }),
    piecewiseLinear: ({ peak, totalSteps }) => ({
      schedule: piecewiseLinear([
        [0, 0],
        [10, peak],
        [totalSteps, peak / 2],
      ]),
      slope: totalSteps / 10,
      end: peak / 2,
    }),
  };

  it.each(Object.keys(continuous))(
    "%s has no jump at its joins, stays within [0, peak] and ends where it should",
    (name) => {
      fc.assert(
        fc.property(settings, (setting) => {
          const { schedule, slope, end } = continuous[name]!(setting);
          const { peak, totalSteps, warmupSteps } = setting;
          // In the warm-up the slope is peak / warmupSteps.
          const largest = Math.max(slope / totalSteps, 1 / Math.max(warmupSteps, 1) + 1e-12);
          const values = Array.from({ length: totalSteps + 50 }, (_, step) => schedule(step));
          for (const [step, value] of values.entries()) {
            expect(value).toBeGreaterThanOrEqual(0);
            expect(value).toBeLessThanOrEqual(peak * (1 + 1e-12));
            if (step > 0 && (warmupSteps > 0 || slope < totalSteps)) {
              expect(Math.abs(value - values[step - 1]!), `step ${step}`).toBeLessThanOrEqual(
                peak * largest * (1 + 1e-9),
              );
            }
          }
          if (end !== undefined) {
            for (const step of [totalSteps, totalSteps + 49]) {
              expect(Math.abs(values[step]! - end)).toBeLessThanOrEqual(peak * 1e-12);
            }
          }
        }),
        { numRuns: 40 },
      );
    },
  );

  it("cosineRestarts is a cosine in every period", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 3 }), (period, periodFactor) => {
        const schedule = cosineRestarts(2, period, { periodFactor, minRatio: 0.1 });
        let start = 0;
        for (let i = 0, length = period; i < 4; i++, length *= periodFactor) {
          const one = cosine(2, length, { minRatio: 0.1 });
          for (let t = 0; t < length; t++) expect(schedule(start + t)).toBeCloseTo(one(t), 12);
          start += length;
        }
      }),
      { numRuns: 40 },
    );
  });
});

it.each<[() => Schedule, string]>([
  [() => algoperfCosine(-1, 10), "[algoperfCosine] peak must be a number of at least 0; received -1."],
  [() => algoperfCosine(1, 10, { warmupFactor: 1 }), "warmupFactor must be a number in [0, 1); received 1."],
  [() => algoperfLinear(1, 0), "[algoperfLinear] totalSteps must be an integer of at least 1; received 0."],
  [() => algoperfLinear(1, 9, { decayStepsFactor: 0 }), "decayStepsFactor must be a number in (0, 1]; received 0."],
  [() => algoperfLinear(1, 9, { endFactor: 2 }), "endFactor must be a number in [0, 1]; received 2."],
  [() => algoperfLinear(1, 9, { end: 2 } as object), '[algoperfLinear] unknown option "end".'],
  [() => cosineRestarts(1, 0), "[cosineRestarts] period must be an integer of at least 1; received 0."],
  [() => cosineRestarts(1, 5, { periodFactor: 1.5 }), "periodFactor must be an integer of at least 1; received 1.5."],
  [() => cosineRestarts(1, 5, { peakFactor: 0 }), "peakFactor must be a number in (0, 1]; received 0."],
  [() => oneCycle(1, 3), "[oneCycle] warmupFraction · totalSteps must be between 1 and 3; received 0.89"],
  [() => oneCycle(1, 100, { startDivisor: 0 }), "startDivisor must be a number of at least 1; received 0."],
  [() => oneCycle(1, 100, { shape: "sqrt" as never }), '[oneCycle] shape must be one of "cosine", "linear"'],
  [() => piecewiseConstant([1, -1], [5]), "[constant] value must be a number of at least 0; received -1."],
  [() => piecewiseConstant([1], [5]), "[join] 1 schedules need 0 boundaries; received 1."],
  [() => piecewiseLinear([]), "[piecewiseLinear] expected at least one point [step, value]; received none."],
  [
    () =>
      piecewiseLinear([
        [3, 1],
        [3, 2],
      ]),
    "points[1][0] must be an integer of at least 4; received 3.",
  ],
  [() => piecewiseLinear([[0, Number.NaN]]), "points[0][1] must be a number of at least 0; received NaN."],
  [() => polynomial(1, 10, { power: 0 }), "[polynomial] power must be a positive number; received 0."],
  [() => polynomial(1, 10, { warmupSteps: 11 }), "[polynomial] warmupSteps (11) must not exceed totalSteps (10)."],
  [() => exponential(1, 0), "[exponential] rate must be a number in (0, 1]; received 0."],
  [() => exponential(1, 0.5, { decaySteps: 0 }), "[exponential] decaySteps must be an integer of at least 1"],
])("schedules refuse bad input %#", (make, message) => {
  expect(make).toThrow(message);
});
