/** Measuring a model on the held-out data of its run. */
import type { BatchSet } from "@llmeff/data";
import type { Transformer } from "@llmeff/models";
import type { Tensor } from "@llmeff/tensor";
import { bitsPerByte, evaluateAccuracy, evaluateLossBySet, type TrainBatch } from "@llmeff/train";
import type { Metric } from "../config/data-schema.js";
import type { LossSets, OpenedData } from "./data/open-data.js";
import { setMetrics } from "./loss-sets.js";
import { tokenBatch } from "./objective.js";

/** The names under which a metric and its standard error stand in the metrics file. */
export const errorName = (metric: Metric) => `${metric}StandardError`;

/** Whether a value is at least as good as a target. NaN never is. */
export function reaches(metric: Metric, value: number, target: number): boolean {
  return metric === "accuracy" ? value >= target : value <= target;
}

/** The metric of the data with its standard error; of documents also the loss by source and by objective. */
export async function evaluateRun(
  model: Transformer,
  params: Record<string, Tensor>,
  { valid }: Pick<OpenedData, "valid">,
  signal: AbortSignal | undefined,
): Promise<Record<string, number>> {
  if (valid.metric === "accuracy") {
    const logits = (p: Record<string, Tensor>, batch: { tokens: Tensor }) => model.logits(p, batch.tokens);
    const { accuracy, standardError } = await evaluateAccuracy(logits, params, valid.answers, { signal });
    return { accuracy, [errorName("accuracy")]: standardError };
  }
  const perToken = (p: Record<string, Tensor>, batch: TrainBatch) =>
    model.lossParts(p, tokenBatch(model, batch)).perToken;
  const measure = (sets: LossSets) => evaluateLossBySet(perToken, params, batchesOf(sets), { signal });
  const { all, sets } = await measure(valid.causal);
  const sources = Object.entries(valid.causal);
  const bytes = sources.reduce((sum, [, set]) => sum + (set.bytes ?? Number.NaN), 0);
  const bySource =
    sources.length > 1 ? sources.map(([name, set]) => setMetrics("source", name, sets[name]!, set.bytes)) : [];
  const byObjective: Record<string, number>[] = [];
  for (const [name, set] of Object.entries(valid.objectives)) {
    byObjective.push(setMetrics("objective", name, (await measure(set)).all));
  }
  return {
    validationLoss: all.loss,
    [errorName("validationLoss")]: all.standardError,
    ...(bytes > 0 && { bitsPerByte: bitsPerByte(all, bytes) }),
    ...Object.assign({}, ...bySource, ...byObjective),
  };
}

function batchesOf(sets: LossSets): Record<string, BatchSet> {
  return Object.fromEntries(Object.entries(sets).map(([name, { batches }]) => [name, batches]));
}
