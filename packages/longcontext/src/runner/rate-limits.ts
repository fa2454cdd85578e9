/** Requests and tokens per minute, and the pauses that an endpoint asks for. */
import { OptionError } from "@llmeff/native/errors";
import type { RateLimitState } from "../models/eval-model.js";
import type { Clock } from "./clock.js";

/** Fills evenly up to one minute's worth. What is larger than that goes when the bucket is full, and leaves it in debt. */
class Bucket {
  #level: number;
  #at: number;

  constructor(
    readonly perMinute: number,
    now: number,
  ) {
    this.#level = perMinute;
    this.#at = now;
  }

  /** Milliseconds until `amount` may be taken. */
  waitFor(amount: number, now: number): number {
    this.#level = Math.min(this.perMinute, this.#level + ((now - this.#at) * this.perMinute) / 60_000);
    this.#at = now;
    const lacking = Math.min(amount, this.perMinute) - this.#level;
    return lacking <= 0 ? 0 : (lacking * 60_000) / this.perMinute;
  }

  take(amount: number): void {
    this.#level -= amount;
  }
}

export interface RateLimitOptions {
  requestsPerMinute?: number;
  /** Prompt and reply together. */
  tokensPerMinute?: number;
}

export class RateLimits {
  readonly #clock: Clock;
  readonly #requests: Bucket | undefined;
  readonly #tokens: Bucket | undefined;
  #pausedUntil = Number.NEGATIVE_INFINITY;
  /** Requests pass one after the other, so that none takes what another has waited for. */
  #queue: Promise<void> = Promise.resolve();

  constructor(options: RateLimitOptions, clock: Clock) {
    const bucket = (name: keyof RateLimitOptions) => {
      const value = options[name];
      if (value === undefined) return undefined;
      if (!(value > 0)) throw new OptionError(`[rateLimits] ${name} must be a positive number; received ${value}.`);
      return new Bucket(value, clock.now());
    };
    this.#clock = clock;
    this.#requests = bucket("requestsPerMinute");
    this.#tokens = bucket("tokensPerMinute");
  }

  /** Waits until a request of this many tokens may be sent. */
  admit(tokens: number, signal?: AbortSignal): Promise<void> {
    const turn = this.#queue.then(() => this.#wait(tokens, signal));
    this.#queue = turn.catch(() => {});
    return turn;
  }

  /** No request goes out for this long. */
  pause(ms: number): void {
    this.#pausedUntil = Math.max(this.#pausedUntil, this.#clock.now() + ms);
  }

  /** Waits for the reset where the endpoint says that nothing is left. */
  observe(state: RateLimitState): void {
    if (state.remainingRequests === 0 && state.resetRequestsMs !== undefined) this.pause(state.resetRequestsMs);
    if (state.remainingTokens === 0 && state.resetTokensMs !== undefined) this.pause(state.resetTokensMs);
  }

  async #wait(tokens: number, signal: AbortSignal | undefined): Promise<void> {
    for (;;) {
      const now = this.#clock.now();
      const wait = Math.max(
        this.#pausedUntil - now,
        this.#requests?.waitFor(1, now) ?? 0,
        this.#tokens?.waitFor(tokens, now) ?? 0,
      );
      if (wait <= 0) break;
      await this.#clock.sleep(wait, signal);
    }
    this.#requests?.take(1);
    this.#tokens?.take(tokens);
  }
}
