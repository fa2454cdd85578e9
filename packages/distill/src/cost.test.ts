import { OptionError } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { describeCost, saltCost } from "./cost.js";

const paper = {
  studentParameters: 2.8e9,
  teacherParameters: 1.5e9,
  baselineSteps: 208e3,
  steps: 146e3,
  teacherSteps: 36e3,
};

describe("saltCost", () => {
  it("is that of the published setting", () => {
    // 1 + 1.5 / 8.4 = 1.179; (146 + 36 · 0.1786) / 208 = 0.733; from disk 146 / 208 = 0.702.
    expect(saltCost(paper).stepFactor).toBeCloseTo(1.179, 3);
    expect(saltCost(paper).relative).toBeCloseTo(0.733, 3);
    expect(saltCost(paper).saved).toBeCloseTo(0.267, 3);
    expect(saltCost({ ...paper, cached: true }).saved).toBeCloseTo(0.298, 3);
  });

  it("counts no teacher after the run's end", () => {
    expect(saltCost({ ...paper, teacherSteps: 1e6 })).toEqual(saltCost({ ...paper, teacherSteps: 146e3 }));
  });

  it("refuses numbers that are none", () => {
    expect(() => saltCost({ ...paper, baselineSteps: 0 })).toThrow(OptionError);
    expect(() => saltCost({ ...paper, teacherSteps: -1 })).toThrow(
      "[saltCost] teacherSteps must be at least 0; received -1.",
    );
  });
});

describe("describeCost", () => {
  it("puts measured seconds beside the operations", () => {
    expect(describeCost(paper, { run: 72, baseline: 100 })).toBe(
      "By operations 0.733 of the baseline, 26.7 % saved; training the teacher is not counted. Measured: 72.0 s against 100 s, 28.0 % saved.",
    );
  });
});
