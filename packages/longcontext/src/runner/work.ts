/** Requests that are under way together, and what ends the work before the last of them. */
import { SpentError } from "./ask.js";
import type { AdaptiveConcurrency, Slot } from "./concurrency.js";
import { AttemptsError } from "./retry.js";

/** Why work ended before its last request, without a failure. */
export type Stopped = "spending" | "interrupted";

export class Work {
  readonly #summary: { stopped?: Stopped };
  readonly #halt = new AbortController();
  #failure: unknown;

  /**
   * @param summary - told why the work stopped
   * @param signal - of the caller: ends the work when the requests under way are answered
   */
  constructor(summary: { stopped?: Stopped }, signal: AbortSignal | undefined) {
    this.#summary = summary;
    const interrupt = () => {
      summary.stopped = "interrupted";
      this.#halt.abort(signal?.reason);
    };
    if (signal?.aborted) interrupt();
    else signal?.addEventListener("abort", interrupt, { once: true, signal: this.halt });
  }

  /** Aborted when nothing more is to be begun. */
  get halt(): AbortSignal {
    return this.#halt.signal;
  }

  /** Does the items in their order, as many at a time as the endpoint takes, until the work ends; waits for all that it began, whatever fails. */
  async each<T>(
    items: Iterable<T> | AsyncIterable<T>,
    concurrency: AdaptiveConcurrency,
    request: (item: T, slot: Slot) => Promise<void>,
  ): Promise<void> {
    const open = new Set<Promise<void>>();
    try {
      for await (const item of items) {
        const slot = await concurrency.acquire();
        if (this.halt.aborted) {
          slot.release();
          break;
        }
        const task: Promise<void> = request(item, slot)
          .catch((error: unknown) => this.#stop(error))
          .finally(() => {
            slot.release();
            open.delete(task);
          });
        open.add(task);
      }
    } catch (error) {
      this.#stop(error);
    }
    await Promise.all(open);
  }

  #stop(error: unknown): void {
    if (this.halt.aborted) return;
    if (error instanceof SpentError) this.#summary.stopped = "spending";
    else this.#failure = error instanceof AttemptsError ? error.failure : error;
    this.#halt.abort(error);
  }

  /** Lets go of the caller's signal, which may outlive the work. @throws what has failed */
  end(): void {
    this.#halt.abort();
    if (this.#failure !== undefined) throw this.#failure;
  }
}
