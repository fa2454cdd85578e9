/** Frequent words (RULER's `fwe`, arXiv:2404.06654 §3.3): coded words whose counts follow a zeta law. */
import type { Random } from "@llmeff/data";
import { OptionError } from "@llmeff/native/errors";
import { streamFor } from "../../random.js";
import type { Sample, SampleMeta } from "../../sample.js";
import { Permutation } from "../../scribe/permutation.js";
import { selectedUnits } from "../../tokens/budget.js";
import { utf8Bytes } from "../../tokens/tokenizer.js";
import { assembleSample, type SampleOptions } from "../sample-options.js";

export interface FrequentWordsParams {
  /** Exponent of the law; default 2. Above 1 and at most 4. */
  alpha?: number;
}

export interface FrequentWordsMeta extends SampleMeta {
  alpha: number;
  /** Times that the answers occur. */
  counts: number[];
}

const RESERVE = 64;
const LETTERS = 26;
const WORD_LENGTH = 6;
const NOISE = "...";
/** Rank 1 is the noise; the three after it are asked for. */
const ANSWERS = 3;
const INTRODUCTION = `Below is a coded text. Its words have six letters and stand for nothing; ${NOISE} is noise. Remember which words occur most.`;

/** Riemann's zeta by the Euler–Maclaurin formula, to double precision for `alpha > 1`. */
export function zeta(alpha: number): number {
  const n = 1000;
  let sum = 0;
  for (let r = n - 1; r >= 1; r--) sum += r ** -alpha;
  return sum + n ** (1 - alpha) / (alpha - 1) + n ** -alpha / 2 + (alpha * n ** (-alpha - 1)) / 12;
}

/** Count of rank `r` in a text of about `total` words: `floor(total · r^-alpha / zeta(alpha))`. */
const expectedCount = (total: number, rank: number, alpha: number, norm: number): number =>
  Math.floor((total * rank ** -alpha) / norm);

/**
 * The text has `floor(N · r^-alpha / zeta(alpha))` times the word of rank `r`, with as large an `N` as the budget allows; the three words
 * after the noise are asked for. `N` starts where the counts of ranks 4 and 5 differ for good, so the answer is one. Only question and
 * target are the same at all lengths.
 */
export function frequentWords(
  options: SampleOptions,
  params: FrequentWordsParams = {},
): Sample<string[], FrequentWordsMeta> {
  const { seed, index, tokenizer = utf8Bytes } = options;
  const { alpha = 2 } = params;
  if (!(alpha > 1 && alpha <= 4)) {
    throw new OptionError(`[frequent_words] alpha must be above 1 and at most 4; received ${alpha}.`);
  }
  const norm = zeta(alpha);
  // From here on N · (4^-alpha - 5^-alpha) / zeta >= 1, so the floors differ too.
  const least = Math.ceil(norm / (4 ** -alpha - 5 ** -alpha));
  const words = new CodedWords(streamFor(seed, "frequent_words", index, "words"));
  const answers = Array.from({ length: ANSWERS }, (_, k) => words.at(k + 2));
  const perWord = tokenizer.count(`${NOISE} `) / norm + tokenizer.count(` ${words.at(2)}`) * (1 - 1 / norm);
  return assembleSample<string[], Omit<FrequentWordsMeta, keyof SampleMeta>>({
    task: "frequent_words",
    options,
    params: { alpha },
    complexity: ANSWERS,
    units: { tokensOf: () => perWord },
    reserve: RESERVE,
    target: answers,
    render: (selection) => {
      const layout = streamFor(seed, "frequent_words", index, "layout");
      const ranks = ranksOf(least + selectedUnits(selection), alpha, norm);
      return [{ role: "user", content: pieces(layout.shuffle(ranks), words) }];
    },
    meta: ({ selection }) => ({
      alpha,
      counts: answers.map((_, k) => expectedCount(least + selectedUnits(selection), k + 2, alpha, norm)),
    }),
  }) as Sample<string[], FrequentWordsMeta>;
}

class CodedWords {
  readonly #order: Permutation;

  constructor(random: Random) {
    this.#order = new Permutation(LETTERS ** WORD_LENGTH, random);
  }

  /** The word of a rank. */
  at(rank: number): string {
    if (rank === 1) return NOISE;
    let word = "";
    for (let rest = this.#order.at(rank), k = 0; k < WORD_LENGTH; k++, rest = Math.floor(rest / LETTERS)) {
      word += String.fromCharCode(97 + (rest % LETTERS));
    }
    return word;
  }
}

/** The rank of every word of the text, in order of rank. */
function ranksOf(total: number, alpha: number, norm: number): Int32Array {
  const counts: number[] = [];
  for (let rank = 1; ; rank++) {
    const count = expectedCount(total, rank, alpha, norm);
    if (count === 0) break;
    counts.push(count);
  }
  const ranks = new Int32Array(counts.reduce((sum, count) => sum + count, 0));
  let at = 0;
  for (const [i, count] of counts.entries()) {
    ranks.fill(i + 1, at, at + count);
    at += count;
  }
  return ranks;
}

/** The prompt in pieces. */
function* pieces(ranks: Int32Array, words: CodedWords): Generator<string> {
  const texts: string[] = [];
  yield `${INTRODUCTION}\n\nText:\n`;
  for (let i = 0; i < ranks.length; i++) {
    const rank = ranks[i]!;
    const word = texts[rank] ?? words.at(rank);
    texts[rank] = word;
    yield i === 0 ? word : ` ${word}`;
  }
  yield `\n\nQuestion: Apart from ${NOISE}, what are the three most frequent words in the text above? Give the words alone.\nAnswer:`;
}
