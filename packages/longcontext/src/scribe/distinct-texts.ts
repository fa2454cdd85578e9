/** Keeps the texts of one transcript apart, so that only one of them is the right copy. */
import { commonSubsequenceLength } from "./common-subsequence.js";

/** Characters in which two texts of one key must differ. */
export const SIGNATURE_LENGTH = 48;
const MOST_RATIO = 0.8;
const SHINGLE_WORDS = 8;

/** Open addressing on 32-bit hashes; 0 marks an empty place. */
class HashSet32 {
  #table = new Int32Array(1 << 12);
  #size = 0;

  has(hash: number): boolean {
    return this.#table[this.#placeOf(hash)] !== 0;
  }

  add(hash: number): void {
    const place = this.#placeOf(hash);
    if (this.#table[place] !== 0) return;
    this.#table[place] = hash;
    if (++this.#size * 2 > this.#table.length) this.#grow();
  }

  #placeOf(hash: number): number {
    const mask = this.#table.length - 1;
    let place = Math.imul(hash, 0x9e3779b1) & mask;
    while (this.#table[place] !== 0 && this.#table[place] !== hash) place = (place + 1) & mask;
    return place;
  }

  #grow(): void {
    const old = this.#table;
    this.#table = new Int32Array(old.length * 2);
    for (const hash of old) if (hash !== 0) this.#table[this.#placeOf(hash)] = hash;
  }
}

/** FNV-1a over the words of each run of eight; never 0. */
function shingleHashes(text: string): Int32Array {
  const words = text.split(/\s+/);
  const hashes = words.map((word) => {
    let h = 0x811c9dc5;
    for (let i = 0; i < word.length; i++) h = Math.imul(h ^ word.charCodeAt(i), 0x01000193);
    return h;
  });
  const count = Math.max(0, words.length - SHINGLE_WORDS + 1);
  const shingles = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    let h = 0x811c9dc5;
    for (let k = 0; k < SHINGLE_WORDS; k++) h = Math.imul(h ^ hashes[i + k]!, 0x01000193);
    shingles[i] = h === 0 ? 1 : h;
  }
  return shingles;
}

/** Upper bound of `2 M / T` of any matcher: what is matched is a common subsequence. */
function ratioBound(a: string, b: string): number {
  const total = a.length + b.length;
  const byLength = (2 * Math.min(a.length, b.length)) / total;
  return byLength <= MOST_RATIO ? byLength : (2 * commonSubsequenceLength(a, b)) / total;
}

/**
 * Texts accepted so far. A new one must be unequal to all; within its key differ from every other in the first 48 characters and have a
 * matching ratio of at most 0.8; and at most half of its 8-word shingles may have been seen in any text before.
 *
 * The last gives a Jaccard index of at most 0.5 with each single text: `s` shared shingles of `n`, `s <= n / 2`, and the other text has at
 * least `s`, so the index is at most `s / (n + s - s) <= 1/2`.
 */
export class DistinctTexts {
  readonly #byKey = new Map<string, string[]>();
  readonly #texts = new Set<string>();
  readonly #shingles = new HashSet32();

  /** Takes the text up if it is distinct; says whether. */
  accept(key: string, text: string): boolean {
    const siblings = this.#byKey.get(key) ?? [];
    const shingles = shingleHashes(text);
    if (this.#texts.has(text) || siblings.some((other) => alike(text, other)) || this.#mostlySeen(shingles))
      return false;
    this.#byKey.set(key, siblings);
    siblings.push(text);
    this.#texts.add(text);
    for (const shingle of shingles) this.#shingles.add(shingle);
    return true;
  }

  #mostlySeen(shingles: Int32Array): boolean {
    let seen = 0;
    for (const shingle of shingles) if (this.#shingles.has(shingle)) seen++;
    return seen * 2 > shingles.length;
  }
}

function alike(a: string, b: string): boolean {
  return a.slice(0, SIGNATURE_LENGTH) === b.slice(0, SIGNATURE_LENGTH) || ratioBound(a, b) > MOST_RATIO;
}
