/** Measuring a model on the validation set of its run. */
import type { Transformer } from "@llmeff/models";
import type { Tensor } from "@llmeff/tensor";
import { bitsPerByte, evaluateAccuracy, evaluateLoss } from "@llmeff/train";
import type { Metric } from "../config/training-schema.js";
import type { OpenedData } from "./open-data.js";

/** The names under which a metric and its standard error stand in the metrics file. */
export const errorName = (metric: Metric) => `${metric}StandardError`;

/** Whether a value is at least as good as a target. NaN never is. */
export function reaches(metric: Metric, value: number, target: number): boolean {
  return metric === "accuracy" ? value >= target : value <= target;
}

/** The metric of the data, and its standard error. */
export async function evaluateRun(
  model: Transformer,
  params: Record<string, Tensor>,
  { metric, valid, validBytes }: OpenedData,
  signal: AbortSignal | undefined,
): Promise<Record<string, number>> {
  if (metric === "accuracy") {
    const logits = (p: Record<string, Tensor>, batch: { tokens: Tensor }) => model.logits(p, batch.tokens);
    const { accuracy, standardError } = await evaluateAccuracy(logits, params, valid, { signal });
    return { accuracy, [errorName(metric)]: standardError };
  }
  const estimate = await evaluateLoss((p, batch) => model.lossParts(p, batch).perToken, params, valid, { signal });
  return {
    validationLoss: estimate.loss,
    [errorName(metric)]: estimate.standardError,
    ...(validBytes && { bitsPerByte: bitsPerByte(estimate, validBytes) }),
  };
}
