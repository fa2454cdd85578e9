/** Tokens and money: what replies took, and the limits that stop a run before it goes over them. */
import { OptionError } from "@llmeff/native/errors";
import type { Usage } from "../models/eval-model.js";

/** Money per million tokens, in any currency. */
export interface Prices {
  input: number;
  output: number;
  /** Of prompt tokens from the endpoint's own cache; default `input`. */
  cachedInput?: number;
}

/** `(prompt − cached) · input + cached · cachedInput + completion · output`, per million. */
export function costOf(usage: Usage, { input, output, cachedInput = input }: Prices): number {
  const { promptTokens, completionTokens, cachedTokens = 0 } = usage;
  return ((promptTokens - cachedTokens) * input + cachedTokens * cachedInput + completionTokens * output) / 1e6;
}

/** Sums over replies. */
export interface UsageTotals {
  requests: number;
  promptTokens: number;
  completionTokens: number;
  cachedTokens: number;
  reasoningTokens: number;
  cost: number;
}

export function noUsage(): UsageTotals {
  return { requests: 0, promptTokens: 0, completionTokens: 0, cachedTokens: 0, reasoningTokens: 0, cost: 0 };
}

export function addUsage(totals: UsageTotals, usage: Usage, cost: number): void {
  totals.requests++;
  totals.promptTokens += usage.promptTokens;
  totals.completionTokens += usage.completionTokens;
  totals.cachedTokens += usage.cachedTokens ?? 0;
  totals.reasoningTokens += usage.reasoningTokens ?? 0;
  totals.cost += cost;
}

export interface SpendingLimits {
  /** In the currency of the prices. */
  maxCost?: number | undefined;
  /** Prompt and completion tokens together. */
  maxTokens?: number | undefined;
}

interface Amount {
  cost: number;
  tokens: number;
}

/**
 * Admits a request only if it fits under the limits even at its most expensive, with all those under way. As replies come, their real price
 * takes the place of the most they could have cost.
 */
export class SpendingGuard {
  readonly #limits: Amount;
  readonly #spent: Amount;
  readonly #open = new Set<Amount>();
  readonly #waiting: (() => void)[] = [];

  /** @param spent - what the run has cost before, when it is gone on with */
  constructor(
    { maxCost = Number.POSITIVE_INFINITY, maxTokens = Number.POSITIVE_INFINITY }: SpendingLimits,
    spent: UsageTotals,
  ) {
    for (const [name, value] of Object.entries({ maxCost, maxTokens })) {
      if (!(value > 0)) throw new OptionError(`[spending] ${name} must be a positive number; received ${value}.`);
    }
    this.#limits = { cost: maxCost, tokens: maxTokens };
    this.#spent = { cost: spent.cost, tokens: spent.promptTokens + spent.completionTokens };
  }

  /**
   * Waits while requests under way might leave enough.
   *
   * @returns how to tell what the request took in the end, or undefined if there isn't enough left for it
   */
  async admit(most: Amount): Promise<((real: Amount) => void) | undefined> {
    while (!this.#fits(most)) {
      if (this.#open.size === 0) return undefined;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    this.#open.add(most);
    return (real) => {
      this.#open.delete(most);
      this.#spent.cost += real.cost;
      this.#spent.tokens += real.tokens;
      for (const wake of this.#waiting.splice(0)) wake();
    };
  }

  #fits(most: Amount): boolean {
    const sum = { cost: this.#spent.cost + most.cost, tokens: this.#spent.tokens + most.tokens };
    for (const { cost, tokens } of this.#open) {
      sum.cost += cost;
      sum.tokens += tokens;
    }
    return sum.cost <= this.#limits.cost && sum.tokens <= this.#limits.tokens;
  }
}
