/**
 * Control tokens: a part of the training documents begins with a token that tells a bucket of their score, such as a classifier's for toxicity, so that
 * generation can be conditioned on one (PaLM 2 report, arXiv:2305.10403, §3; models.md §12).
 */
import { OptionError } from "@llmeff/native/errors";
import type { DocumentSet } from "./documents.js";
import type { Seed } from "./philox.js";
import { Random } from "./random.js";
import { fingerprint } from "./token-dataset.js";

export interface ControlTokenOptions {
  /** Ids of the buckets' tokens, from the lowest scores to the highest. */
  tokens: readonly number[];
  /** Ascending scores at which the next bucket begins; one fewer than tokens. `scoreThreshold` estimates such. */
  borders: readonly number[];
  /** Share of the documents that are tagged; default 0.05. */
  fraction?: number;
  /** Of the choice of these; default 0. */
  seed?: Seed;
}

/**
 * The documents, of which some begin with the token of their score's bucket. Which these are, (seed, document) decides; it is the same in every epoch, so that
 * the untagged ones are never seen with one. Spans are never hidden at a sequence's start: objectives of UL2 leave the token where it is.
 *
 * @param scores - of each document; NaN where there is none: such a document isn't tagged
 * @throws {OptionError} for scores that aren't as many as documents, or options that don't fit
 *
 * @example
 * const tagged = tagDocuments(documents, toxicity, { tokens: [low, middle, high], borders: [0.2, 0.6] });
 * const prompt = [low, ...tokenizer.encode("…")]; // to generate text of the lowest bucket
 */
export function tagDocuments(
  documents: DocumentSet,
  scores: ArrayLike<number>,
  options: ControlTokenOptions,
): DocumentSet {
  const { tokens, borders, fraction = 0.05, seed = 0 } = options;
  checkOptions(documents, scores, options, fraction);
  const tags = Int32Array.from({ length: documents.count }, (_, index) => {
    const score = scores[index]!;
    if (Number.isNaN(score) || new Random(seed, "control-tokens", index).uniform() >= fraction) return -1;
    return tokens[borders.filter((border) => score >= border).length]!;
  });
  const tagged = tags.reduce((n, tag) => n + (tag < 0 ? 0 : 1), 0);
  const withTag = (document: Int32Array, tag: number) => {
    if (tag < 0) return document;
    const whole = new Int32Array(document.length + 1);
    whole[0] = tag;
    whole.set(document, 1);
    return whole;
  };
  return {
    count: documents.count,
    tokenCount: documents.tokenCount + tagged,
    fingerprint: `${documents.fingerprint} tagged ${fingerprint(tags)}`,
    document(index) {
      const document = documents.document(index);
      const tag = tags[index]!;
      return document instanceof Promise ? document.then((whole) => withTag(whole, tag)) : withTag(document, tag);
    },
  };
}

function checkOptions(
  { count }: DocumentSet,
  scores: ArrayLike<number>,
  { tokens, borders }: ControlTokenOptions,
  fraction: number,
): void {
  const fail = (message: string) => {
    throw new OptionError(`[tagDocuments] ${message}`);
  };
  if (scores.length !== count) fail(`expected a score for each of ${count} documents; received ${scores.length}.`);
  if (tokens.length === 0 || tokens.some((id) => !Number.isSafeInteger(id) || id < 0))
    fail(`tokens must be ids of at least one bucket; received ${JSON.stringify(tokens)}.`);
  if (borders.length !== tokens.length - 1 || borders.some((border, i) => !(border > (borders[i - 1] ?? -Infinity))))
    fail(`${tokens.length} tokens need ${tokens.length - 1} ascending borders; received ${JSON.stringify(borders)}.`);
  if (!(fraction > 0 && fraction <= 1)) fail(`fraction must be in (0, 1]; received ${fraction}.`);
}
