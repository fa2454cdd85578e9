/** Work that may go on together, and work that needs all memory for itself, in the order of the calls. */
export class Turns {
  /** The last that was begun alone. */
  #alone: Promise<unknown> = Promise.resolve();
  /** What was begun since. */
  readonly #together = new Set<Promise<unknown>>();

  /** Begins when all work before that wants to be alone is over. */
  together<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#alone.then(work);
    const ended: Promise<unknown> = settled(turn).then(() => this.#together.delete(ended));
    this.#together.add(ended);
    return turn;
  }

  /** Begins when all work before is over, and what comes later waits. */
  alone<T>(work: () => Promise<T>): Promise<T> {
    const turn = Promise.all([this.#alone, ...this.#together]).then(work);
    this.#together.clear();
    this.#alone = settled(turn);
    return turn;
  }
}

function settled(turn: Promise<unknown>): Promise<unknown> {
  return turn.catch(() => {});
}
