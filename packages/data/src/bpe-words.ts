/**
 * The distinct words of a corpus as tokens that are merged pair by pair. Tokens are linked to their neighbours, and every pair knows where it stands, so that a
 * merge costs its occurrences, not the lengths of the words that they are in: without spaces a whole text is one word.
 */

/** More tokens than any vocabulary has; a pair of ids as one number. */
export const idLimit = 2 ** 22;

export const keyOf = (left: number, right: number) => left * idLimit + right;

/** No neighbour, and the id of a place whose token has been merged into the one before. */
const NONE = -1;

interface PairUse {
  /** Occurrences, by the frequencies of their words. */
  count: number;
  /** Ascending places of left tokens at which the pair stands or stood. */
  places: number[];
}

export class BpeWords {
  readonly #ids: Int32Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #wordOf: Int32Array;
  readonly #frequencies: Float64Array;
  readonly #pairs = new Map<number, PairUse>();

  /** @param counts - words with their frequencies */
  constructor(counts: ReadonlyMap<string, number>) {
    const encoded = [...counts.keys()].map((word) => Buffer.from(word, "utf8"));
    const size = encoded.reduce((n, bytes) => n + bytes.length, 0);
    this.#ids = new Int32Array(size);
    this.#next = new Int32Array(size).fill(NONE);
    this.#previous = new Int32Array(size).fill(NONE);
    this.#wordOf = new Int32Array(size);
    this.#frequencies = Float64Array.from(counts.values());
    let start = 0;
    for (const [word, bytes] of encoded.entries()) {
      const end = start + bytes.length;
      this.#ids.set(bytes, start);
      this.#wordOf.fill(word, start, end);
      for (let at = start; at + 1 < end; at++) {
        this.#next[at] = at + 1;
        this.#previous[at + 1] = at;
        this.#add(at);
      }
      start = end;
    }
  }

  /** Keys of all pairs that stand or stood somewhere. */
  pairs(): Iterable<number> {
    return this.#pairs.keys();
  }

  /** Occurrences of a pair. */
  count(key: number): number {
    return this.#pairs.get(key)?.count ?? 0;
  }

  /**
   * Replaces a pair by one token in every word, from left to right. @returns the pairs that may have become more frequent
   *
   * The places of a pair ascend: they are all found in the merge that makes the younger of its tokens, or are bytes.
   */
  merge(left: number, right: number, token: number): Set<number> {
    const key = keyOf(left, right);
    const changed = new Set<number>();
    const { places } = this.#pairs.get(key)!;
    for (const at of places) {
      const second = this.#next[at]!;
      if (this.#ids[at] !== left || second === NONE || this.#ids[second] !== right) continue; // merged otherwise since
      const [before, after] = [this.#previous[at]!, this.#next[second]!];
      if (before !== NONE) this.#remove(before);
      if (after !== NONE) this.#remove(second);
      this.#ids[at] = token;
      this.#ids[second] = NONE;
      this.#next[at] = after;
      if (after !== NONE) this.#previous[after] = at;
      if (before !== NONE) changed.add(this.#add(before));
      if (after !== NONE) changed.add(this.#add(at));
    }
    this.#pairs.delete(key);
    changed.delete(key);
    return changed;
  }

  #keyAt(at: number): number {
    return keyOf(this.#ids[at]!, this.#ids[this.#next[at]!]!);
  }

  /** Counts the pair that begins at a place. */
  #add(at: number): number {
    const key = this.#keyAt(at);
    let use = this.#pairs.get(key);
    if (use === undefined) {
      use = { count: 0, places: [] };
      this.#pairs.set(key, use);
    }
    use.count += this.#frequencies[this.#wordOf[at]!]!;
    if (use.places.at(-1) !== at) use.places.push(at);
    return key;
  }

  #remove(at: number): void {
    this.#pairs.get(this.#keyAt(at))!.count -= this.#frequencies[this.#wordOf[at]!]!;
  }
}
