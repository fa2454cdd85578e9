/**
 * Canaries: documents that no author wrote, trained on a known number of times, to measure what a model has memorised
 * (PaLM 2 report, arXiv:2305.10403, §4.6; models.md §12).
 */
import { OptionError } from "@llmeff/native/errors";
import type { Seed } from "./philox.js";
import { Random } from "./random.js";

/** Documents need this many tokens to be made into canaries. */
export const CANARY_MIN_TOKENS = 500;
/** Tokens of a run of `interleavedCanary`. */
const RUN = 50;

function requireLong(where: string, document: ArrayLike<number>): void {
  if (document.length < CANARY_MIN_TOKENS) {
    throw new OptionError(
      `[${where}] a document of at least ${CANARY_MIN_TOKENS} tokens is needed; received ${document.length}.`,
    );
  }
}

/** Two documents in alternating runs of 50 tokens, each in its own order; the rest of the longer one follows. */
export function interleavedCanary(first: ArrayLike<number>, second: ArrayLike<number>): Int32Array {
  requireLong("interleavedCanary", first);
  requireLong("interleavedCanary", second);
  const [a, b] = [Int32Array.from(first), Int32Array.from(second)];
  const runs: number[] = [];
  for (let at = 0; at < Math.max(a.length, b.length); at += RUN) {
    runs.push(...a.subarray(at, at + RUN), ...b.subarray(at, at + RUN));
  }
  return Int32Array.from(runs);
}

/** All tokens of a document in a random order, which (seed, index) decides. */
export function shuffledCanary(document: ArrayLike<number>, options: { seed?: Seed; index?: number } = {}): Int32Array {
  requireLong("shuffledCanary", document);
  const { seed = 0, index = 0 } = options;
  return new Random(seed, "canary/shuffle", index).shuffle(Int32Array.from(document));
}

/** What a model is given, and what it tells if it has memorised the document. */
export interface ExtractionTest {
  prefix: Int32Array;
  suffix: Int32Array;
}

/**
 * The first tokens of a document as a test of greedy generation.
 *
 * @param options.prefix - default 60, as PaLM 2 has for canaries; 50 for training documents
 * @param options.suffix - default 30; 50 for training documents
 */
export function extractionTest(
  document: ArrayLike<number>,
  options: { prefix?: number; suffix?: number } = {},
): ExtractionTest {
  const { prefix = 60, suffix = 30 } = options;
  if (document.length < prefix + suffix) {
    throw new OptionError(
      `[extractionTest] the document has ${document.length} tokens; a prefix of ${prefix} and a suffix of ${suffix} need ${prefix + suffix}.`,
    );
  }
  const tokens = Int32Array.from(document);
  return { prefix: tokens.slice(0, prefix), suffix: tokens.slice(prefix, prefix + suffix) };
}

/** Share of the tests whose suffix was generated token for token. */
export function extractedShare(tests: readonly ExtractionTest[], generated: readonly ArrayLike<number>[]): number {
  if (tests.length === 0 || tests.length !== generated.length) {
    throw new OptionError(
      `[extractedShare] expected as many generations as tests, at least one; received ${generated.length} for ${tests.length}.`,
    );
  }
  const extracted = tests.filter(({ suffix }, i) => suffix.every((id, place) => generated[i]![place] === id));
  return extracted.length / tests.length;
}
