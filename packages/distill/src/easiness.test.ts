import { sequentialWindows } from "@llmeff/data";
import { OptionError } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { seqLen, student, studentModel, teacherOf, text } from "../test/setup.js";
import { compareTokens, easinessReport } from "./easiness.js";

const compared = {
  teacherLosses: Float64Array.of(3, 1, 2, 4),
  studentLosses: Float64Array.of(3, 0.5, 2, 2),
  divergences: Float64Array.of(1, 2, 3, 4),
};

describe("easinessReport", () => {
  it("sorts tokens by the teacher's loss into buckets of one size", () => {
    const { buckets, switchNow } = easinessReport(compared, 2);
    expect(buckets).toEqual([
      { tokens: 2, teacherCe: 1.5, studentCe: 1.25, kl: 2.5 },
      { tokens: 2, teacherCe: 3.5, studentCe: 2.5, kl: 2.5 },
    ]);
    expect(switchNow).toBe(true);
    expect(easinessReport({ ...compared, studentLosses: compared.teacherLosses }, 4).switchNow).toBe(false);
    expect(() => easinessReport(compared, 5)).toThrow(OptionError);
  });
});

describe("compareTokens", () => {
  it("has the losses of both on every target, and a divergence of 0 from oneself", async () => {
    const own = { model: student, params: studentModel.init(1) };
    const batches = () => sequentialWindows(text(), { seqLen, batchSize: 4, maxWindows: 6 });
    const same = await compareTokens(own, own, batches());
    expect(same.teacherLosses).toHaveLength(6 * seqLen);
    expect(same.studentLosses).toEqual(same.teacherLosses);
    expect(Math.max(...same.divergences.map(Math.abs))).toBeLessThan(1e-6);
    const other = await compareTokens(own, teacherOf(), batches());
    expect(other.studentLosses).toEqual(same.studentLosses);
    expect(Math.min(...other.divergences)).toBeGreaterThanOrEqual(-1e-7);
    expect(easinessReport(other).buckets.map(({ tokens }) => tokens)).toEqual(new Array(10).fill(6));
  });
});
