/** The schedules of models.json. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { describeGolden } from "../../../test/golden.js";
import { cosine, inverseSqrt, linear, type Schedule, wsd } from "./schedules.js";

interface LrCase {
  id: string;
  op: string;
  params: {
    kind: string;
    peak: number;
    warmup: number;
    total: number;
    min_ratio?: number;
    decay_frac?: number;
    decay_shape?: "linear" | "sqrt" | "cosine";
  };
  inputs: { steps: number[] };
  outputs: { lr: number[] };
  tol: { f64: number };
}

function scheduleOf({ params }: LrCase): Schedule {
  const { kind, peak, warmup: warmupSteps, total, min_ratio: minRatio = 0 } = params;
  if (kind === "cosine") return cosine(peak, total, { warmupSteps, minRatio });
  if (kind === "linear") return linear(peak, total, { warmupSteps, minRatio });
  if (kind === "rsqrt") return inverseSqrt(peak, warmupSteps);
  const { decay_frac: decayFraction = 0.1, decay_shape: decayShape = "linear" } = params;
  return wsd(peak, total, { warmupSteps, minRatio, decayFraction, decayShape });
}

describeGolden("models.json", (path) => {
  const file = JSON.parse(readFileSync(path, "utf8")) as { cases: LrCase[] };
  it.each(file.cases.filter(({ op }) => op === "lr"))("$id", (golden) => {
    const schedule = scheduleOf(golden);
    for (const [i, step] of golden.inputs.steps.entries()) {
      const want = golden.outputs.lr[i]!;
      expect(Math.abs(schedule(step) - want), `step ${step}`).toBeLessThanOrEqual(
        golden.tol.f64 * (1 + Math.abs(want)),
      );
    }
  });
});
