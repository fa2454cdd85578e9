/** How many requests an endpoint gets at a time: one more after a window without trouble, half as many when it has too much. */
import { OptionError } from "@llmeff/native/errors";

export interface ConcurrencyOptions {
  /** Default 4, or `max` if that is less. */
  start?: number;
  /** Default 64. */
  max?: number;
}

/** The right to send one request. */
export interface Slot {
  /** To be called once, when the request is over. */
  release(): void;
  succeeded(): void;
  overloaded(): void;
}

export class AdaptiveConcurrency {
  readonly #max: number;
  #limit: number;
  #active = 0;
  #successes = 0;
  /** Counts the halvings, so that requests sent before one don't cause the next. */
  #halvings = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(options: ConcurrencyOptions = {}) {
    const { max = 64, start = Math.min(4, max) } = options;
    for (const [name, value] of Object.entries({ max, start })) {
      if (!Number.isSafeInteger(value) || value < 1) {
        throw new OptionError(`[concurrency] ${name} must be a positive integer; received ${value}.`);
      }
    }
    this.#max = max;
    this.#limit = Math.min(start, max);
  }

  get limit(): number {
    return this.#limit;
  }

  get active(): number {
    return this.#active;
  }

  /** Waits until a request may be sent; first come, first served. */
  async acquire(): Promise<Slot> {
    while (this.#active >= this.#limit) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#active++;
    const sentAt = this.#halvings;
    return {
      release: () => {
        this.#active--;
        this.#wake();
      },
      succeeded: () => {
        if (++this.#successes < this.#limit) return;
        this.#successes = 0;
        this.#limit = Math.min(this.#max, this.#limit + 1);
        this.#wake();
      },
      overloaded: () => {
        this.#successes = 0;
        if (sentAt !== this.#halvings) return;
        this.#halvings++;
        this.#limit = Math.max(1, Math.floor(this.#limit / 2));
      },
    };
  }

  #wake(): void {
    for (let free = this.#limit - this.#active; free > 0; free--) this.#waiting.shift()?.();
  }
}
