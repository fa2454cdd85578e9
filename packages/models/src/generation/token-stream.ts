/** Tokens on their way from the generator to the reader. */

interface Reader<T> {
  resolve(result: IteratorResult<T, undefined>): void;
  reject(reason: unknown): void;
}

export interface TokenStreamOptions {
  /** Tokens that may wait for the reader. */
  capacity: number;
  /** Called when a full stream has room again. */
  onRoom(): void;
  /** Called once when the reader leaves before the end. */
  onLeave(): void;
}

/**
 * An async generator fed from outside. Unlike a function with `yield` it can be left before it is first read, and while a token is awaited.
 */
export class TokenStream<T> implements AsyncGenerator<T, undefined, undefined> {
  readonly #waiting: T[] = [];
  /** Of these, how many have been read: a whole prompt may wait, and each shift would move all of it. */
  #read = 0;
  readonly #readers: Reader<T>[] = [];
  #ended = false;
  #failure: { reason: unknown } | undefined;

  constructor(private readonly options: TokenStreamOptions) {}

  /** Whether a further token would wait behind as many as may. */
  get full(): boolean {
    return this.#waiting.length - this.#read >= this.options.capacity;
  }

  push(token: T): void {
    const reader = this.#readers.shift();
    if (reader === undefined) this.#waiting.push(token);
    else reader.resolve({ value: token, done: false });
  }

  /** No token follows. */
  end(): void {
    this.#ended = true;
    for (const reader of this.#readers.splice(0)) reader.resolve({ value: undefined, done: true });
  }

  /** No token follows, and the reader is told why: after those that wait. */
  fail(reason: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    const reader = this.#readers.shift();
    if (reader === undefined) this.#failure = { reason };
    else reader.reject(reason);
    this.end();
  }

  next(): Promise<IteratorResult<T, undefined>> {
    if (this.#waiting.length > this.#read) {
      const wasFull = this.full;
      const value = this.#waiting[this.#read++]!;
      if (2 * this.#read >= this.#waiting.length) {
        this.#waiting.splice(0, this.#read);
        this.#read = 0;
      }
      if (wasFull && !this.#ended) this.options.onRoom();
      return Promise.resolve({ value, done: false });
    }
    if (this.#failure !== undefined) {
      const { reason } = this.#failure;
      this.#failure = undefined;
      return Promise.reject(reason);
    }
    if (this.#ended) return Promise.resolve({ value: undefined, done: true });
    return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.#leave();
    return Promise.resolve({ value: undefined, done: true });
  }

  throw(reason: unknown): Promise<IteratorResult<T, undefined>> {
    this.#leave();
    return Promise.reject(reason);
  }

  #leave(): void {
    const early = !this.#ended;
    this.#waiting.length = 0;
    this.#read = 0;
    this.#failure = undefined;
    this.end();
    if (early) this.options.onLeave();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }
}
