/**
 * What of a held-out set stands in the training text: overlap by runs of 15 tokens, as PaLM 2's report filters its evaluations (arXiv:2305.10403;
 * models.md §12).
 */
import { OptionError } from "@llmeff/native/errors";
import { NgramIndex, requireDocument } from "./ngram-index.js";

export interface ContaminationOptions {
  /** Tokens of a run; default 15. */
  n?: number;
}

/** Overlap of one held-out document with the training text. */
export interface Overlap {
  /** Runs of n tokens, at every place; 0 for a document of fewer than n tokens, of which nothing can be said. */
  runs: number;
  /** Those that stand in the training text. */
  shared: number;
  /** `shared / runs`; 0 without any. */
  share: number;
  /** The longest stretch of the document whose runs are all shared, in tokens: n and more if any is. */
  longest: number;
}

/**
 * Looks for held-out documents in training documents, of which it sees one after the other and keeps none; memory goes with the held-out set.
 *
 * @example
 * const check = new ContaminationCheck(heldOut);
 * for await (const document of training) check.add(document);
 * const clean = check.clean().map((i) => heldOut[i]!);
 */
export class ContaminationCheck {
  readonly #index: NgramIndex;
  /** Runs of each held-out document by place. */
  readonly #runs: readonly Int32Array[];
  readonly #seen: Uint8Array;
  /** Training documents that share a run with the held-out set. */
  #sharing = 0;
  #documents = 0;

  /** @param heldOut - documents as token ids; kept, not copied */
  constructor(heldOut: Iterable<ArrayLike<number>>, { n = 15 }: ContaminationOptions = {}) {
    this.#index = new NgramIndex("ContaminationCheck", n);
    this.#runs = Array.from(heldOut, (document) => {
      requireDocument("ContaminationCheck", document);
      return this.#index.add(document);
    });
    if (this.#runs.length === 0)
      throw new OptionError("[ContaminationCheck] expected held-out documents; received none.");
    this.#seen = new Uint8Array(this.#index.count);
  }

  /** Adds a training document. @returns at how many of its places a run of the held-out set begins, such as to leave the document out */
  add(document: ArrayLike<number>): number {
    requireDocument("ContaminationCheck.add", document);
    let found = 0;
    this.#index.search(document, (run) => {
      this.#seen[run] = 1;
      found += 1;
    });
    this.#documents += 1;
    if (found > 0) this.#sharing += 1;
    return found;
  }

  /** Training documents seen, and those of them that share a run with the held-out set. */
  get training(): { documents: number; sharing: number } {
    return { documents: this.#documents, sharing: this.#sharing };
  }

  /** Of each held-out document, with all training documents so far. */
  overlaps(): Overlap[] {
    return this.#runs.map((runs) => {
      let shared = 0;
      let stretch = 0;
      let longest = 0;
      for (const run of runs) {
        const seen = this.#seen[run] === 1;
        stretch = seen ? stretch + 1 : 0;
        if (seen) shared += 1;
        longest = Math.max(longest, stretch);
      }
      return {
        runs: runs.length,
        shared,
        share: runs.length === 0 ? 0 : shared / runs.length,
        longest: longest === 0 ? 0 : longest + this.#index.n - 1,
      };
    });
  }

  /**
   * Numbers of the held-out documents whose share of overlap is at most `mostShare`.
   *
   * @param mostShare - in [0, 1); default 0: without any
   */
  clean(mostShare = 0): number[] {
    if (!(mostShare >= 0 && mostShare < 1)) {
      throw new OptionError(`[ContaminationCheck.clean] mostShare must be in [0, 1); received ${mostShare}.`);
    }
    return this.overlaps().flatMap(({ share }, i) => (share <= mostShare ? [i] : []));
  }
}
