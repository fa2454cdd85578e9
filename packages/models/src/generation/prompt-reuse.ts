/** Sequences that begin alike need one pass over their beginning. */
import type { KvCache } from "../cache.js";
import type { SequenceCaches } from "./sequence.js";

/** What somebody remembers of these tokens. */
export interface Remembered {
  ids: readonly number[];
  caches: SequenceCaches;
}

function commonLength(a: readonly number[], b: readonly number[]): number {
  const most = Math.min(a.length, b.length);
  for (let i = 0; i < most; i++) if (a[i] !== b[i]) return i;
  return most;
}

/** How many leading tokens of a prompt are among those remembered: not the last one, after which the scores are wanted. */
export function sharedLength(prompt: readonly number[], { ids }: Remembered): number {
  return commonLength(prompt.slice(0, -1), ids);
}

/** Whether the cache still has the rows that the first `length` positions need. */
export function canLend(cache: KvCache, length: number): boolean {
  return length <= cache.length && length >= cache.earliest;
}

/** The caches of sequences that have ended, the latest first. */
export class KeptCaches {
  readonly #kept: Remembered[] = [];

  constructor(private readonly most: number) {}

  [Symbol.iterator](): Iterator<Remembered> {
    return this.#kept[Symbol.iterator]();
  }

  /** Takes caches over. Those that begin this one are of no further use; the oldest goes when there are too many. */
  add(remembered: Remembered): void {
    const whole = (other: Remembered) => commonLength(other.ids, remembered.ids) === other.ids.length;
    for (const other of this.#kept.filter(whole)) this.#drop(other);
    this.#kept.unshift(remembered);
    while (this.#kept.length > this.most) this.#drop(this.#kept.at(-1)!);
  }

  /** It was of use, and shall stay longer. */
  touch(remembered: Remembered): void {
    const at = this.#kept.indexOf(remembered);
    if (at > 0) this.#kept.unshift(...this.#kept.splice(at, 1));
  }

  #drop(remembered: Remembered): void {
    this.#kept.splice(this.#kept.indexOf(remembered), 1);
    disposeCaches(remembered.caches);
  }

  dispose(): void {
    for (const remembered of [...this.#kept]) this.#drop(remembered);
  }
}

export function disposeCaches({ cache, draft }: SequenceCaches): void {
  cache.dispose();
  draft?.dispose();
}
