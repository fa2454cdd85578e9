/** What a run will ask for, before anything is sent. */
import { costOf, type Prices } from "./cost.js";

export interface Estimate {
  requests: number;
  promptTokens: number;
  /** The most that the replies may take; most take less. */
  completionTokens: number;
  /** At the most, by the prices; null without prices. */
  cost: number | null;
}

/** Totals of `samples` for so many models and trials. */
export function estimate(
  set: { samples: number; promptTokens: number; reserveTokens: number },
  times: number,
  prices?: Prices,
): Estimate {
  const promptTokens = set.promptTokens * times;
  const completionTokens = set.reserveTokens * times;
  return {
    requests: set.samples * times,
    promptTokens,
    completionTokens,
    cost: prices === undefined ? null : costOf({ promptTokens, completionTokens }, prices),
  };
}
