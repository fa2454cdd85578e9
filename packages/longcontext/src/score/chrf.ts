/**
 * chrF and chrF++ (Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015; "chrF++: words helping character n-grams",
 * WMT 2017) with the defaults and the arithmetic of sacreBLEU 2.
 */
import { OptionError } from "@llmeff/native/errors";
import { codePoints, removeSpace, splitWords } from "./unicode-text.js";

export interface ChrfOptions {
  /** Longest n-gram of characters; default 6. */
  charOrder?: number;
  /** Longest n-gram of words; default 0, 2 is chrF++. */
  wordOrder?: number;
  /** Weight of recall against precision; default 2. */
  beta?: number;
  lowercase?: boolean;
  /** Count white space as characters. */
  keepWhitespace?: boolean;
  /** Average F over all orders with 1e-16 for what doesn't exist, as chrF++.py does, instead of over the orders that both texts have. */
  epsSmoothing?: boolean;
}

/** Counts of one order: n-grams of the hypothesis (0 if the reference has none), of the reference, and of both. */
export type ChrfCounts = [hypothesis: number, reference: number, match: number];

const EPS = 1e-16;

/**
 * chrF of one sentence, 0 to 100; of several references the best counts.
 *
 * Per order n, precision = matches / hypothesis and recall = matches / reference (matches clipped); both are averaged over the orders, and
 * `F = (1 + β²)·P·R / (β²·P + R)`.
 *
 * @throws {OptionError} without references, or for an order or beta out of range
 *
 * @example
 * chrf("the the the", ["the cat"]); // 19.69
 */
export function chrf(hypothesis: string, references: readonly string[], options: ChrfOptions = {}): number {
  const settings = checkedOptions(options);
  return fScore(bestCounts(hypothesis, references, settings), settings);
}

/**
 * chrF of a corpus: the counts of all sentences, each with its best reference, are summed before F is taken.
 *
 * @param references - a list a sentence
 */
export function corpusChrf(
  hypotheses: readonly string[],
  references: readonly (readonly string[])[],
  options: ChrfOptions = {},
): number {
  if (hypotheses.length !== references.length) {
    throw new OptionError(
      `[corpusChrf] needs a list of references for each hypothesis; received ${references.length} for ${hypotheses.length}.`,
    );
  }
  const settings = checkedOptions(options);
  const total: ChrfCounts[] = Array.from({ length: settings.charOrder + settings.wordOrder }, () => [0, 0, 0]);
  for (const [i, hypothesis] of hypotheses.entries()) {
    for (const [order, counts] of bestCounts(hypothesis, references[i]!, settings).entries()) {
      for (const k of [0, 1, 2] as const) total[order]![k] += counts[k];
    }
  }
  return fScore(total, settings);
}

/** The counts behind a score: first those of characters by order, then those of words. */
export function chrfCounts(hypothesis: string, reference: string, options: ChrfOptions = {}): ChrfCounts[] {
  const settings = checkedOptions(options);
  return countMatches(ngramsOf(hypothesis, settings), ngramsOf(reference, settings));
}

function checkedOptions(options: ChrfOptions): Required<ChrfOptions> {
  const settings = {
    charOrder: 6,
    wordOrder: 0,
    beta: 2,
    lowercase: false,
    keepWhitespace: false,
    epsSmoothing: false,
    ...options,
  };
  const { charOrder, wordOrder, beta } = settings;
  if (
    !Number.isInteger(charOrder) ||
    !Number.isInteger(wordOrder) ||
    charOrder < 0 ||
    wordOrder < 0 ||
    charOrder + wordOrder < 1
  ) {
    throw new OptionError(
      `[chrf] charOrder and wordOrder must be integers of at least 0, not both 0; received ${charOrder} and ${wordOrder}.`,
    );
  }
  if (!(beta > 0 && Number.isFinite(beta))) throw new OptionError(`[chrf] beta must be positive; received ${beta}.`);
  return settings;
}

function bestCounts(hypothesis: string, references: readonly string[], settings: Required<ChrfOptions>): ChrfCounts[] {
  if (references.length === 0) throw new OptionError("[chrf] needs at least one reference; received none.");
  const ngrams = ngramsOf(hypothesis, settings);
  let best: ChrfCounts[] = [];
  let bestScore = -1;
  for (const reference of references) {
    const counts = countMatches(ngrams, ngramsOf(reference, settings));
    const score = fScore(counts, settings);
    if (score > bestScore) {
      best = counts;
      bestScore = score;
    }
  }
  return best;
}

/** How often each n-gram occurs, a table an order. */
type Ngrams = ReadonlyMap<string, number>[];

function ngramsOf(text: string, { charOrder, wordOrder, lowercase, keepWhitespace }: Required<ChrfOptions>): Ngrams {
  const cased = lowercase ? text.toLowerCase() : text;
  const chars = Array.from(codePoints(keepWhitespace ? cased : removeSpace(cased)), (point) =>
    String.fromCodePoint(point),
  );
  const tables: Ngrams = [];
  for (let n = 1; n <= charOrder; n++) tables.push(countNgrams(chars, n, ""));
  const words = wordOrder > 0 ? splitWords(cased).flatMap(partPunctuation) : [];
  for (let n = 1; n <= wordOrder; n++) tables.push(countNgrams(words, n, " "));
  return tables;
}

function countNgrams(items: readonly string[], n: number, separator: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (let i = 0; i + n <= items.length; i++) {
    const ngram = items.slice(i, i + n).join(separator);
    counts.set(ngram, (counts.get(ngram) ?? 0) + 1);
  }
  return counts;
}

const ENDING = /^(.+)([!-/:-@[-`{-~])$/su;
const BEGINNING = /^([!-/:-@[-`{-~])(.+)$/su;

/** A final ASCII punctuation mark of a word, else an initial one, is a word of its own. */
function partPunctuation(word: string): string[] {
  return (ENDING.exec(word) ?? BEGINNING.exec(word))?.slice(1) ?? [word];
}

function countMatches(hypothesis: Ngrams, reference: Ngrams): ChrfCounts[] {
  return hypothesis.map((own, order) => {
    const theirs = reference[order]!;
    let match = 0;
    for (const [ngram, count] of own) match += Math.min(count, theirs.get(ngram) ?? 0);
    return [theirs.size > 0 ? sum(own) : 0, sum(theirs), match];
  });
}

function sum(counts: ReadonlyMap<string, number>): number {
  let total = 0;
  for (const count of counts.values()) total += count;
  return total;
}

function fScore(counts: readonly ChrfCounts[], { beta, epsSmoothing }: Required<ChrfOptions>): number {
  if (epsSmoothing) {
    const perOrder = counts.map(([hypothesis, reference, match]) => {
      const precision = hypothesis > 0 ? match / hypothesis : EPS;
      const recall = reference > 0 ? match / reference : EPS;
      return combine(precision, recall, beta, EPS);
    });
    return (100 * perOrder.reduce((a, b) => a + b)) / counts.length;
  }
  const effective = counts.filter(([hypothesis, reference]) => hypothesis > 0 && reference > 0);
  if (effective.length === 0) return 0;
  const mean = (of: (counts: ChrfCounts) => number): number =>
    effective.reduce((total, order) => total + of(order), 0) / effective.length;
  const precision = mean(([hypothesis, , match]) => match / hypothesis);
  const recall = mean(([, reference, match]) => match / reference);
  return 100 * combine(precision, recall, beta, 0);
}

function combine(precision: number, recall: number, beta: number, without: number): number {
  const denominator = beta * beta * precision + recall;
  return denominator > 0 ? ((1 + beta * beta) * precision * recall) / denominator : without;
}
