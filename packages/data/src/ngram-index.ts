/** Runs of n tokens by what they are: which of some known ones occur in a text, found in one pass over it. */
import { OptionError } from "@llmeff/native/errors";
import { requireInteger } from "./batch.js";

/** Odd, so that powers of it never vanish modulo 2³²; those of PCG and MurmurHash3. */
const BASES = [0x5851f42d, 0x85ebca6b] as const;

/** Called with the number of a known run and the place where it begins. */
export type OnRun = (run: number, place: number) => void;

/**
 * Numbers the different runs of n tokens among those that are added. They are found by two rolling hashes modulo 2³² (polynomials in the tokens) and then
 * compared token by token, so nothing is found that isn't there.
 */
export class NgramIndex {
  readonly n: number;
  readonly #drops: readonly [number, number];
  /** First run of a hash, and of each run the next of the same hash. */
  readonly #first = new Map<number, number>();
  readonly #next: number[] = [];
  /** Where each run's tokens are: in which text, at which place. */
  readonly #texts: ArrayLike<number>[] = [];
  readonly #textOf: number[] = [];
  readonly #startOf: number[] = [];

  /** @throws {OptionError} if n isn't a positive integer */
  constructor(where: string, n: number) {
    this.n = requireInteger(where, "n", n, 1);
    this.#drops = BASES.map((base) => power(base, n)) as [number, number];
  }

  /** Number of different runs. */
  get count(): number {
    return this.#startOf.length;
  }

  /** Adds all runs of a text, which is kept, not copied. @returns their numbers by place */
  add(tokens: ArrayLike<number>): Int32Array {
    this.#texts.push(tokens);
    const runs = new Int32Array(Math.max(0, tokens.length - this.n + 1));
    this.#roll(tokens, (hash, start) => {
      const known = this.#find(hash, tokens, start);
      runs[start] = known ?? this.#insert(hash, start);
    });
    return runs;
  }

  /** Finds the known runs in a text. */
  search(tokens: ArrayLike<number>, onRun: OnRun): void {
    this.#roll(tokens, (hash, start) => {
      const run = this.#find(hash, tokens, start);
      if (run !== undefined) onRun(run, start);
    });
  }

  #roll(tokens: ArrayLike<number>, visit: (hash: number, start: number) => void): void {
    const { n } = this;
    const [b0, b1] = BASES;
    const [drop0, drop1] = this.#drops;
    let [h0, h1] = [0, 0];
    for (let at = 0; at < tokens.length; at++) {
      const token = tokens[at]! + 1; // leading zeros would not count
      const leaving = at >= n ? tokens[at - n]! + 1 : 0;
      h0 = (Math.imul(h0, b0) + token - Math.imul(leaving, drop0)) | 0;
      h1 = (Math.imul(h1, b1) + token - Math.imul(leaving, drop1)) | 0;
      // 53 bits of the 64: a key of a Map.
      if (at >= n - 1) visit((h0 >>> 0) * 2 ** 21 + (h1 >>> 11), at - n + 1);
    }
  }

  #find(hash: number, tokens: ArrayLike<number>, start: number): number | undefined {
    let run = this.#first.get(hash);
    while (run !== undefined && run >= 0) {
      if (this.#equals(run, tokens, start)) return run;
      run = this.#next[run];
    }
    return undefined;
  }

  #equals(run: number, tokens: ArrayLike<number>, start: number): boolean {
    const known = this.#texts[this.#textOf[run]!]!;
    const at = this.#startOf[run]!;
    for (let i = 0; i < this.n; i++) if (known[at + i] !== tokens[start + i]) return false;
    return true;
  }

  /** A run of the text that was added last. */
  #insert(hash: number, start: number): number {
    const run = this.#startOf.push(start) - 1;
    this.#textOf.push(this.#texts.length - 1);
    this.#next.push(this.#first.get(hash) ?? -1);
    this.#first.set(hash, run);
    return run;
  }
}

function power(base: number, exponent: number): number {
  let result = 1;
  for (let i = 0; i < exponent; i++) result = Math.imul(result, base);
  return result;
}

/** @throws {OptionError} naming the document that is none */
export function requireDocument(where: string, document: ArrayLike<number>): void {
  if (typeof document === "object" && document !== null && Number.isSafeInteger(document.length)) return;
  throw new OptionError(`[${where}] a document must be a list of token ids; received ${typeof document}.`);
}
