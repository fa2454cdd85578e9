/** Translation from one book (after MTOB, arXiv:2403.05530 §5.2.2.1) about a language that does not exist. */
import type { Random } from "@llmeff/data";
import { OptionError } from "@llmeff/native/errors";
import { streamFor } from "../../random.js";
import { requireInteger } from "../../require-integer.js";
import type { Sample, SampleMeta } from "../../sample.js";
import { utf8Bytes } from "../../tokens/tokenizer.js";
import { assembleSample, type SampleOptions } from "../sample-options.js";
import { longestOf, withQuestion } from "../shared-prompt.js";
import { Book, CONDITIONS, type Condition } from "./book.js";
import { drawClause, drawCombination, FEATURES, type Feature, lexemesOf } from "./clauses.js";
import { englishReferences, englishSentence } from "./english.js";
import type { Clause, Grammar } from "./grammar.js";
import {
  drawLanguage,
  type Language,
  LEAST_LEXEMES,
  type LexemeKeys,
  MOST_LEXEMES,
  restrictLexicon,
} from "./language.js";
import { constructedSentence } from "./realize.js";

export type Direction = "en-x" | "x-en";

export interface ConlangParams {
  condition?: Condition;
  /** Default: in turn by index. */
  direction?: Direction;
  /** Lexemes of the language, 200 to 2000; default 800. */
  lexemes?: number;
  /** How many features the sentence combines that no example shows together; default 2: the complexity. */
  compose?: number;
  /** Sentences asked of one book, so that a prefix cache serves them; default 1. */
  sentencesPerBook?: number;
}

export interface ConlangMeta extends SampleMeta {
  /** With the lexemes of the sentence alone. */
  grammar: Grammar;
  /** The sentence as a clause. */
  item: Clause;
  direction: Direction;
  condition: Condition | "pairs";
  language: string;
  /** Features that no example shows together. */
  composed: Feature[];
  /** Samples of one book share it. */
  book: number;
}

export const CONLANG_RESERVE = 256;
const MOST_SENTENCES = 100;
/** Lexemes that the grammar's examples use, and those from which tests are drawn. */
const CORE = { nouns: 24, verbs: 10, adjs: 8, adps: 4 };
const TESTED = { nouns: 120, verbs: 40, adjs: 40, adps: 6 };

export function firstKeys(keys: LexemeKeys, counts: Readonly<Record<keyof LexemeKeys, number>>): LexemeKeys {
  return {
    nouns: keys.nouns.slice(0, counts.nouns),
    verbs: keys.verbs.slice(0, counts.verbs),
    adjs: keys.adjs.slice(0, counts.adjs),
    adps: keys.adps.slice(0, counts.adps),
  };
}

/** Keys of the grammar's examples: the first of the lexicon, with a transitive verb among them. */
function coreKeys({ keys, grammar }: Language): LexemeKeys {
  const core = firstKeys(keys, CORE);
  const transitive = keys.verbs.filter((verb) => grammar.verbs[verb]!.trans).slice(0, 2);
  return { ...core, verbs: [...new Set([...core.verbs, ...transitive])] };
}

export function directionOf(index: number, direction: Direction | undefined): Direction {
  if (direction !== undefined && direction !== "en-x" && direction !== "x-en") {
    throw new OptionError(`[conlang] direction must be "en-x" or "x-en"; received ${JSON.stringify(direction)}.`);
  }
  return direction ?? (index % 2 === 0 ? "en-x" : "x-en");
}

function* withEnd(pieces: Iterable<string>, end: string): Generator<string> {
  yield* pieces;
  yield end;
}

/** The sentence to translate, and all accepted translations. */
export function translationOf(clause: Clause, grammar: Grammar, direction: Direction): [string, string[]] {
  const constructed = constructedSentence(clause, grammar);
  return direction === "en-x"
    ? [englishSentence(clause, grammar), [constructed]]
    : [constructed, englishReferences(clause, grammar)];
}

export function translationTask(name: string, direction: Direction, sentence: string): string {
  const [from, to] = direction === "en-x" ? ["English", name] : [name, "English"];
  return `Translate from ${from} to ${to}. Give the translation alone.\nSentence: ${sentence}\nTranslation:`;
}

/**
 * A grammar, a dictionary and sentences of a made-up language, then a sentence to translate that combines features never seen together.
 * Targets are all accepted translations.
 *
 * The conditions `none` and `rules-only` end where the book ends and may stay below the budget.
 */
export function conlang(options: SampleOptions, params: ConlangParams = {}): Sample<string[], ConlangMeta> {
  const { seed, index, tokenizer = utf8Bytes } = options;
  const { condition = "full", lexemes = 800, compose = 2, sentencesPerBook = 1 } = params;
  const direction = directionOf(index, params.direction);
  if (!CONDITIONS.includes(condition)) {
    throw new OptionError(`[conlang] condition must be one of ${CONDITIONS.join(", ")}; received ${condition}.`);
  }
  requireInteger("conlang", "lexemes", lexemes, LEAST_LEXEMES, MOST_LEXEMES);
  requireInteger("conlang", "compose", compose, 2, FEATURES.length - 1);
  requireInteger("conlang", "sentencesPerBook", sentencesPerBook, 1, MOST_SENTENCES);
  const number = Math.floor(index / sentencesPerBook);
  const stream = (purpose: string): Random =>
    streamFor(seed, "conlang", number, `${lexemes}/${compose}/${sentencesPerBook}/${purpose}`);
  const language = drawLanguage(stream("language"), lexemes);
  const { grammar, name } = language;
  const random = stream("tests");
  const combinations = Array.from({ length: sentencesPerBook }, () => drawCombination(random, compose));
  const keys = firstKeys(language.keys, TESTED);
  const tests = combinations.map((wanted) => drawClause(random, { grammar, keys, wanted }));
  const book = new Book({
    language,
    condition,
    tests,
    unseen: combinations,
    core: coreKeys(language),
    stream,
    tokenizer,
  });
  const query = index % sentencesPerBook;
  const item = tests[query]!;
  const questions = tests.map((clause, k) => {
    const asked = directionOf(number * sentencesPerBook + k, params.direction);
    return translationTask(name, asked, translationOf(clause, grammar, asked)[0]);
  });
  const longest = longestOf(questions, tokenizer);
  const [, target] = translationOf(item, grammar, direction);
  const sample = assembleSample<string[], Omit<ConlangMeta, keyof SampleMeta>>({
    task: "conlang",
    options,
    params: { condition, direction, lexemes, compose, sentencesPerBook },
    complexity: compose,
    units: book,
    finite: condition === "none" || condition === "rules-only",
    reserve: CONLANG_RESERVE,
    target,
    render: (selection) => [{ role: "user", content: withEnd(book.pieces(selection), longest) }],
    meta: () => ({
      grammar: restrictLexicon(grammar, lexemesOf([item])),
      item,
      direction,
      condition,
      language: name,
      composed: combinations[query]!,
      book: number,
    }),
  }) as Sample<string[], ConlangMeta>;
  return withQuestion(sample, longest, questions[query]!, options);
}
