/**
 * Batches made ahead of their use, a bounded number of them.
 *
 * `state()` is the state of what was *consumed*: batches that wait in the queue do not count, so a checkpoint taken between two
 * steps resumes with exactly the next batch, whatever was prepared by then.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { type Batch, type BatchSource, type JsonObject, requireInteger } from "./batch.js";

export interface PrefetchOptions {
  /** Batches held ready; default 2. */
  depth?: number;
  /** Stops the work; `next()` then rejects with the signal's reason. */
  signal?: AbortSignal;
}

type Prepared = { batch: Batch; state: JsonObject } | { error: unknown };

interface Waiter {
  resolve(batch: Batch): void;
  reject(error: unknown): void;
}

/** Wraps a source; from then on use only the wrapper. Work starts with the first `next()`. */
export function prefetch(source: BatchSource, options: PrefetchOptions = {}): BatchSource {
  return new Prefetcher(source, requireInteger("prefetch", "depth", options.depth ?? 2, 1), options.signal);
}

class Prefetcher implements BatchSource {
  readonly #source: BatchSource;
  readonly #depth: number;
  readonly #signal: AbortSignal | undefined;
  #ready: Prepared[] = [];
  readonly #waiters: Waiter[] = [];
  #consumed: JsonObject;
  #working = false;
  #inFlight = false;
  /** Set by restore() while the source is busy; taken up as soon as it is free. `before` is where we stay if the source refuses. */
  #pendingRestore: { state: JsonObject; before: JsonObject } | undefined;

  constructor(source: BatchSource, depth: number, signal: AbortSignal | undefined) {
    this.#source = source;
    this.#depth = depth;
    this.#signal = signal;
    this.#consumed = source.state();
    signal?.addEventListener("abort", () => this.#abort(), { once: true });
  }

  next(): Promise<Batch> {
    if (this.#signal?.aborted) return Promise.reject(this.#signal.reason);
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#serve();
      void this.#work();
    });
  }

  state(): JsonObject {
    return this.#consumed;
  }

  restore(state: JsonObject): void {
    if (this.#inFlight) this.#pendingRestore = { state, before: this.#pendingRestore?.before ?? this.#consumed };
    else this.#source.restore(state);
    this.#ready = [];
    this.#consumed = state;
  }

  /** Fills the queue; a failure of the source takes its turn in the queue and ends the work until somebody asks again. */
  async #work(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    try {
      while (!this.#signal?.aborted && (this.#ready.length < this.#depth || this.#waiters.length > 0)) {
        const prepared = await this.#prepare();
        if (prepared === undefined) continue;
        this.#ready.push(prepared);
        this.#serve();
        if ("error" in prepared) break;
        // A source without any waiting of its own must not keep the event loop to itself.
        await nextTurn();
      }
    } finally {
      this.#working = false;
    }
    // A request that came while a failure was being delivered starts a new attempt.
    if (this.#waiters.length > 0 && this.#ready.length === 0 && !this.#signal?.aborted) void this.#work();
  }

  /** One item of the source, or undefined if it became void because of restore(). */
  async #prepare(): Promise<Prepared | undefined> {
    let prepared: Prepared;
    this.#inFlight = true;
    try {
      const batch = await this.#source.next();
      prepared = { batch, state: this.#source.state() };
    } catch (error) {
      prepared = { error };
    } finally {
      this.#inFlight = false;
    }
    const restore = this.#pendingRestore;
    if (restore === undefined) return prepared;
    this.#pendingRestore = undefined;
    try {
      this.#source.restore(restore.state);
      return undefined;
    } catch (error) {
      this.#source.restore(restore.before);
      this.#consumed = restore.before;
      return { error };
    }
  }

  #serve(): void {
    while (this.#waiters.length > 0 && this.#ready.length > 0) {
      const waiter = this.#waiters.shift()!;
      const prepared = this.#ready.shift()!;
      if ("error" in prepared) {
        waiter.reject(prepared.error);
      } else {
        this.#consumed = prepared.state;
        waiter.resolve(prepared.batch);
      }
    }
  }

  #abort(): void {
    this.#ready = [];
    for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#signal?.reason);
  }
}
