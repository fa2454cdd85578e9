/** The names under which losses on parts of the held-out data stand among the metrics, and those parts found again. */
import type { LossEstimate } from "@llmeff/train";
import { bitsPerByte } from "@llmeff/train";

/** What the held-out data are divided by. */
export type Division = "source" | "objective";

/** A loss as the metrics have it. */
export interface MeasuredSet {
  division: Division;
  name: string;
  loss: number;
  standardError: number;
  /** Where the whole text is predicted. */
  bitsPerByte?: number;
}

/** `objective/prefix/loss`, `objective/prefix/lossStandardError`, and of sources `source/en/bitsPerByte`. */
export function setMetrics(
  division: Division,
  name: string,
  estimate: LossEstimate,
  bytes?: number | undefined,
): Record<string, number> {
  const at = (measure: string) => `${division}/${name}/${measure}`;
  return {
    [at("loss")]: estimate.loss,
    [at("lossStandardError")]: estimate.standardError,
    ...(bytes && { [at("bitsPerByte")]: bitsPerByte(estimate, bytes) }),
  };
}

/** The parts that some metrics tell of, in their order. */
export function measuredSets(metrics: Readonly<Record<string, number>>): MeasuredSet[] {
  return Object.entries(metrics).flatMap(([key, loss]) => {
    const [, division, name] = /^(source|objective)\/(.+)\/loss$/.exec(key) ?? [];
    if (name === undefined) return [];
    const at = `${division}/${name}`;
    const bits = metrics[`${at}/bitsPerByte`];
    return [
      {
        division: division as Division,
        name,
        loss,
        standardError: metrics[`${at}/lossStandardError`] ?? Number.NaN,
        ...(bits !== undefined && { bitsPerByte: bits }),
      },
    ];
  });
}
