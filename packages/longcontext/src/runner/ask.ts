/** One endpoint as a run uses it: so many requests at a time, at a pace, tried again, within the money. */
import { type EvalModel, type GenRequest, type GenResult, ModelError, type Usage } from "../models/eval-model.js";
import type { Clock } from "./clock.js";
import { AdaptiveConcurrency, type ConcurrencyOptions, type Slot } from "./concurrency.js";
import { costOf, type Prices, type SpendingGuard } from "./cost.js";
import { type RateLimitOptions, RateLimits } from "./rate-limits.js";
import { type Attempted, type RetryOptions, withRetries } from "./retry.js";

export interface EndpointOptions {
  prices?: Prices | undefined;
  concurrency?: ConcurrencyOptions | undefined;
  rateLimits?: RateLimitOptions | undefined;
  retries?: RetryOptions | undefined;
}

/** The limits on spending leave no room for another request. */
export class SpentError extends Error {}

export class Endpoint {
  readonly model: EvalModel;
  readonly prices: Prices;
  readonly concurrency: AdaptiveConcurrency;
  readonly #limits: RateLimits;
  readonly #retries: RetryOptions;
  readonly #guard: SpendingGuard;
  readonly #clock: Clock;

  constructor(model: EvalModel, options: EndpointOptions, guard: SpendingGuard, clock: Clock) {
    this.model = model;
    this.prices = options.prices ?? { input: 0, output: 0 };
    this.concurrency = new AdaptiveConcurrency(options.concurrency);
    this.#limits = new RateLimits(options.rateLimits ?? {}, clock);
    this.#retries = options.retries ?? {};
    this.#guard = guard;
    this.#clock = clock;
  }

  /**
   * Asks until there is a reply.
   *
   * @param promptTokens - what the prompt takes, as far as is known
   * @param measure - the usage of a reply, where the endpoint doesn't tell it
   * @param halt - ends waiting between tries; a request under way is let finish, as it is paid for
   * @throws {AttemptsError} if there is none; {@link SpentError}
   */
  async ask(
    request: GenRequest,
    promptTokens: number,
    measure: (result: GenResult) => Usage,
    slot: Slot,
    halt: AbortSignal,
  ): Promise<Attempted<GenResult>> {
    const most = { promptTokens, completionTokens: request.maxTokens };
    const tokens = promptTokens + request.maxTokens;
    const settle = await this.#guard.admit({ cost: costOf(most, this.prices), tokens });
    if (settle === undefined) throw new SpentError();
    let taken = { cost: 0, tokens: 0 };
    try {
      const attempted = await withRetries(
        async () => {
          await this.#limits.admit(tokens, halt);
          return this.#once(request);
        },
        this.#retries,
        this.#clock,
        (failure) => this.#heed(failure, slot),
        halt,
      );
      slot.succeeded();
      const usage = measure(attempted.value);
      taken = { cost: costOf(usage, this.prices), tokens: usage.promptTokens + usage.completionTokens };
      return attempted;
    } finally {
      settle(taken);
    }
  }

  async #once(request: GenRequest): Promise<GenResult> {
    const result = await this.model.generate(request);
    if (result.rateLimit !== undefined) this.#limits.observe(result.rateLimit);
    if (result.finish === "error") {
      throw new ModelError("retry", `[${this.model.id}] the endpoint ended its answer with an error.`);
    }
    return result;
  }

  #heed(failure: ModelError, slot: Slot): void {
    if (!failure.overloaded) return;
    slot.overloaded();
    if (failure.retryAfterMs !== undefined) this.#limits.pause(failure.retryAfterMs);
  }
}
