/** What commands that ask a model have in common: pace, tries, prices, limits on spending. */
import type { EndpointOptions, Estimate, Prices, SpendingLimits } from "@llmeff/longcontext";
import { formatCompact } from "@llmeff/report";
import { defined } from "../run/defined.js";
import type { ModelOptions, OpenedModel } from "./open-model.js";

export interface AskingOptions extends ModelOptions {
  /** Most requests a minute. */
  rpm?: number;
  /** Most tokens a minute. */
  tpm?: number;
  retries: number;
  price?: Prices;
  maxCost?: number;
  maxTokens?: number;
}

export function endpointOf({ concurrency }: OpenedModel, options: AskingOptions): EndpointOptions {
  const { price, rpm, tpm, retries } = options;
  return {
    concurrency,
    retries: { maxRetries: retries },
    rateLimits: defined({ requestsPerMinute: rpm, tokensPerMinute: tpm }),
    prices: price,
  };
}

export function spendingOf({ maxCost, maxTokens }: AskingOptions): SpendingLimits {
  return { maxCost, maxTokens };
}

export function describeEstimate({ requests, promptTokens, completionTokens, cost }: Estimate): string {
  const money = cost === null ? "" : `, ${cost.toFixed(4)} at the most`;
  return `${requests} requests, ${formatCompact(promptTokens)} prompt tokens, at most ${formatCompact(completionTokens)} tokens of replies${money}`;
}
