/** Sequences that begin alike need one pass over their beginning. */
import type { KvCache } from "../cache.js";
import type { SequenceCaches } from "./sequence.js";

/** What somebody remembers of these tokens. */
export interface KnownTokens {
  ids: Int32Array;
  caches: SequenceCaches;
}

function commonLength(a: Int32Array, b: Int32Array): number {
  const most = Math.min(a.length, b.length);
  for (let i = 0; i < most; i++) if (a[i] !== b[i]) return i;
  return most;
}

/** How many leading tokens of a prompt are among those known: not the last one, after which the scores are wanted. */
export function sharedLength(prompt: Int32Array, { ids }: KnownTokens): number {
  return Math.min(prompt.length - 1, commonLength(prompt, ids));
}

/** Whether the cache still has the rows that the first `length` positions need. */
export function canLend(cache: KvCache, length: number): boolean {
  return length <= cache.length && length >= cache.earliest;
}

/** The caches of sequences that have ended, the latest first. */
export class KeptCaches {
  readonly #kept: KnownTokens[] = [];

  constructor(private readonly most: number) {}

  [Symbol.iterator](): Iterator<KnownTokens> {
    return this.#kept[Symbol.iterator]();
  }

  /** Takes caches over. Those that begin this one are of no further use; the oldest goes when there are too many. */
  add(known: KnownTokens): void {
    const whole = (other: KnownTokens) => commonLength(other.ids, known.ids) === other.ids.length;
    for (const other of this.#kept.filter(whole)) this.#drop(other);
    this.#kept.unshift(known);
    while (this.#kept.length > this.most) this.#drop(this.#kept.at(-1)!);
  }

  /** It was of use, and shall stay longer. */
  touch(known: KnownTokens): void {
    const at = this.#kept.indexOf(known);
    if (at > 0) this.#kept.unshift(...this.#kept.splice(at, 1));
  }

  #drop(known: KnownTokens): void {
    this.#kept.splice(this.#kept.indexOf(known), 1);
    disposeCaches(known.caches);
  }

  dispose(): void {
    for (const known of [...this.#kept]) this.#drop(known);
  }
}

export function disposeCaches({ cache, draft }: SequenceCaches): void {
  cache.dispose();
  draft?.dispose();
}
