/** Places behind those of the prompt, so that its ids are not copied again for the first that is drawn. */
const room = 1024;

/** Ids that go on being drawn, four bytes each: those of a prompt of millions are copied in milliseconds. */
export class TokenIds {
  #values: Int32Array;
  #length: number;

  constructor(ids: ArrayLike<number>) {
    this.#values = new Int32Array(ids.length + room);
    this.#values.set(ids);
    this.#length = ids.length;
  }

  get length(): number {
    return this.#length;
  }

  push(id: number): void {
    if (this.#length === this.#values.length) {
      const larger = new Int32Array(2 * this.#length + 16);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.#length++] = id;
  }

  /** A view, of those that are there now. */
  view(from = 0, to = this.#length): Int32Array {
    return this.#values.subarray(from, Math.min(to, this.#length));
  }
}
