/** What the report needs of a training run. */
import { join } from "node:path";
import { type MetricRecord, readMetrics } from "@llmeff/report";
import { z } from "zod";
import type { Metric } from "../config/training-schema.js";
import { errorName, reaches } from "../run/evaluation.js";
import { metricsFile } from "../run/recorder.js";

/** JSON has no NaN: it is stored as null. */
const number = z
  .number()
  .nullable()
  .transform((value) => value ?? Number.NaN);

/** Numbers of a finished run, as the ledger keeps them. */
export const outcomeSchema = z.object({
  parameters: z.number(),
  /** Those that a token meets: of a mixture, the experts that it goes to. */
  activeParameters: z.number(),
  steps: z.number(),
  tokens: z.number(),
  flopsPerToken: z.number(),
  value: number,
  /** NaN where there are too few sequences for one. */
  standardError: number,
  seconds: z.number(),
  learningRate: z.number(),
  sample: z.string().nullable(),
});
export type Outcome = z.infer<typeof outcomeSchema>;

/** An arm's run with one seed. */
export interface SeedRun {
  seed: number;
  outcome: Outcome;
  /** Tokens at the first evaluation that reached the part's target; null if none did. */
  tokensToTarget: number | null;
  evaluations: Curve;
  trainingLoss: Curve;
}

export interface Curve {
  tokens: number[];
  values: number[];
  standardErrors: number[];
}

/** Curves from a run's metrics file. */
export async function readCurves(folder: string, metric: Metric, target: number) {
  const records = await readMetrics(join(folder, metricsFile));
  const evaluations = curve(records, metric);
  const reached = evaluations.values.findIndex((value) => reaches(metric, value, target));
  return {
    evaluations,
    trainingLoss: curve(records, "loss"),
    tokensToTarget: evaluations.tokens[reached] ?? null,
  };
}

function curve(records: readonly MetricRecord[], name: string): Curve {
  const points = records.filter((record) => typeof record[name] === "number");
  const numbers = (key: string) => points.map((record) => (typeof record[key] === "number" ? record[key] : Number.NaN));
  return { tokens: numbers("tokens"), values: numbers(name), standardErrors: numbers(errorName(name as Metric)) };
}
