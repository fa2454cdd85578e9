/** Common words (RULER's `cwe`, arXiv:2404.06654 §3.3): which words of a numbered list occur most. */
import type { Random } from "@llmeff/data";
import { OptionError } from "@llmeff/native/errors";
import { streamFor } from "../../random.js";
import { requireInteger } from "../../require-integer.js";
import type { Sample, SampleMeta } from "../../sample.js";
import { WordKeys } from "../../scribe/word-keys.js";
import { type Selection, selectedUnits, type UnitStream, unitAt } from "../../tokens/budget.js";
import { type Tokenizer, utf8Bytes } from "../../tokens/tokenizer.js";
import { UnitCounter } from "../../tokens/unit-counter.js";
import { assembleSample, type SampleOptions } from "../sample-options.js";

export interface CommonWordsParams {
  /** How many words are asked for; default 10. */
  common?: number;
  /** Times each of them occurs; default 30, below 4096 tokens 6. */
  commonCount?: number;
  /** Times every other word occurs; default 3, below 4096 tokens 1. A small difference makes counting necessary. */
  otherCount?: number;
}

export interface CommonWordsMeta extends SampleMeta {
  commonCount: number;
  otherCount: number;
}

const RESERVE = 160;
const SHORT = 4096;
const MOST_COUNT = 10_000;
/** A place in the list and a word share one exact double: 31 bits and 22 bits. */
const WORDS = 2 ** 22;
const PLACES = 2 ** 31;
const INTRODUCTION = "Below is a numbered list of words. Some of them occur more often than others; remember which.";

/**
 * `common` words stand `commonCount` times in a list in which every other word stands `otherCount` times. Each entry has a place drawn
 * once, so a longer list keeps the order of the shorter. Complexity is `common`.
 *
 * @throws {OptionError} unless `commonCount > otherCount`, so that the answer is one
 */
export function commonWords(options: SampleOptions, params: CommonWordsParams = {}): Sample<string[], CommonWordsMeta> {
  const { seed, index, maxTokens, tokenizer = utf8Bytes } = options;
  const isShort = maxTokens < SHORT;
  const { common = 10, commonCount = isShort ? 6 : 30, otherCount = isShort ? 1 : 3 } = params;
  requireInteger("common_words", "common", common, 1, 1000);
  requireInteger("common_words", "otherCount", otherCount, 1, MOST_COUNT);
  requireInteger("common_words", "commonCount", commonCount, 2, MOST_COUNT);
  if (commonCount <= otherCount) {
    throw new OptionError(
      `[common_words] commonCount must be above otherCount, or no word is common; received ${commonCount} and ${otherCount}.`,
    );
  }
  const stream = (purpose: string): Random => streamFor(seed, "common_words", index, purpose);
  const words = new WordKeys(stream("words"));
  const relevant = Array.from({ length: common }, (_, i) => words.at(i));
  const shape = `${common}/${commonCount}`;
  const entries = drawEntries(stream(`common/${shape}`), common * commonCount, (i) => i % common);
  const units = new WordUnits(words, common, otherCount, stream(`filler/${otherCount}`), tokenizer);
  return assembleSample<string[], Omit<CommonWordsMeta, keyof SampleMeta>>({
    task: "common_words",
    options,
    params: { common, commonCount, otherCount },
    complexity: common,
    units,
    reserve: RESERVE,
    target: relevant,
    render: (selection) => [
      {
        role: "user",
        content: units.pieces(
          `${INTRODUCTION}\n\n`,
          entries,
          selection,
          `\n\nQuestion: What are the ${common} most common words in the list above? Give the words alone.\nAnswer:`,
        ),
      },
    ],
    meta: () => ({ commonCount, otherCount }),
  }) as Sample<string[], CommonWordsMeta>;
}

/** Entries as `place · WORDS + word`, so that sorting the numbers orders the list. */
function drawEntries(random: Random, count: number, wordOf: (i: number) => number): number[] {
  return Array.from({ length: count }, (_, i) => random.integer(0, PLACES) * WORDS + wordOf(i));
}

/** Uncommon words; a unit is one word with all its occurrences. */
class WordUnits implements UnitStream {
  readonly #words: WordKeys;
  readonly #firstWord: number;
  readonly #occurrences: number;
  readonly #random: Random;
  readonly #counter: UnitCounter;
  readonly #entries: number[] = [];
  readonly #tokens: number[] = [];

  constructor(words: WordKeys, firstWord: number, occurrences: number, random: Random, tokenizer: Tokenizer) {
    this.#words = words;
    this.#firstWord = firstWord;
    this.#occurrences = occurrences;
    this.#random = random;
    this.#counter = new UnitCounter(tokenizer);
  }

  tokensOf(i: number): number | undefined {
    while (this.#tokens.length <= i) {
      const word = this.#firstWord + this.#tokens.length;
      if (word >= WORDS) return undefined;
      this.#entries.push(...drawEntries(this.#random, this.#occurrences, () => word));
      // The number before the word is not known yet; its digits are those that it would have at the end of the list so far.
      const line = `${this.#entries.length}. ${this.#words.at(word)} `;
      this.#tokens.push(this.#occurrences * this.#counter.count(line));
    }
    return this.#tokens[i];
  }

  /** The numbered list in pieces, between what stands before and after it. */
  *pieces(before: string, common: readonly number[], selection: Selection, after: string): Generator<string> {
    const n = selectedUnits(selection);
    const sorted = new Float64Array(common.length + n * this.#occurrences);
    sorted.set(common);
    for (let k = 0, to = common.length; k < n; k++) {
      const from = unitAt(selection, k) * this.#occurrences;
      for (let j = 0; j < this.#occurrences; j++) sorted[to++] = this.#entries[from + j]!;
    }
    sorted.sort();
    yield before;
    for (let i = 0; i < sorted.length; i++) {
      yield `${i === 0 ? "" : " "}${i + 1}. ${this.#words.at(sorted[i]! % WORDS)}`;
    }
    yield after;
  }
}
