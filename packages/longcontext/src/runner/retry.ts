/** Trying again: full jitter (wait a uniform share of a doubling limit), unless the endpoint says how long to wait. */
import { OptionError } from "@llmeff/native/errors";
import { ModelError } from "../models/eval-model.js";
import type { Clock } from "./clock.js";

export interface RetryOptions {
  /** Tries after the first; 0 means none. Default 5. */
  maxRetries?: number;
  /** Limit of the first wait; default 1 s. */
  baseMs?: number;
  /** Limit of all waits; default 60 s. What the endpoint asks for counts as it is. */
  maxMs?: number;
}

export interface Attempted<T> {
  value: T;
  attempts: number;
}

/** Gives up: `attempts` says after how many tries. */
export class AttemptsError extends Error {
  constructor(
    readonly failure: ModelError,
    readonly attempts: number,
  ) {
    super(failure.message, { cause: failure });
  }
}

/**
 * Runs `attempt` until it succeeds, fails in a way that another try won't change, or has been tried often enough.
 *
 * @param onFailure - told of every failed try
 * @throws {AttemptsError} with the last failure; whatever else `attempt` throws, as it is
 */
export async function withRetries<T>(
  attempt: () => Promise<T>,
  options: RetryOptions,
  clock: Clock,
  onFailure: (failure: ModelError) => void,
  signal?: AbortSignal,
): Promise<Attempted<T>> {
  const { maxRetries = 5, baseMs = 1000, maxMs = 60_000 } = options;
  if (!Number.isSafeInteger(maxRetries) || maxRetries < 0) {
    throw new OptionError(`[retries] maxRetries must be an integer of at least 0; received ${maxRetries}.`);
  }
  for (let attempts = 1; ; attempts++) {
    try {
      return { value: await attempt(), attempts };
    } catch (error) {
      if (!(error instanceof ModelError)) throw error;
      onFailure(error);
      if (error.kind !== "retry" || attempts > maxRetries) throw new AttemptsError(error, attempts);
      const limit = Math.min(maxMs, baseMs * 2 ** (attempts - 1));
      await clock.sleep(error.retryAfterMs ?? clock.random() * limit, signal);
    }
  }
}
