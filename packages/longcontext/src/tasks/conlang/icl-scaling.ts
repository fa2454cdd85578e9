/** In-context learning curves (arXiv:2403.05530 §5.2.2.3): translation from K random sentence pairs and nothing else. */
import type { Random } from "@llmeff/data";
import { BudgetTooSmallError } from "../../errors.js";
import { streamFor } from "../../random.js";
import { requireInteger } from "../../require-integer.js";
import type { Sample, SampleMeta } from "../../sample.js";
import { countPrompt } from "../../tokens/budget.js";
import { utf8Bytes } from "../../tokens/tokenizer.js";
import { assembleSample, type SampleOptions } from "../sample-options.js";
import { pairLine } from "./book.js";
import { drawClause, lexemesOf } from "./clauses.js";
import {
  CONLANG_RESERVE,
  type ConlangMeta,
  type Direction,
  directionOf,
  firstKeys,
  translationOf,
  translationTask,
} from "./conlang.js";
import { drawLanguage, LEAST_LEXEMES, restrictLexicon } from "./language.js";

export interface IclParams {
  /** Sentence pairs shown, K. */
  pairs: number;
  /** Fresh pairs of the same language and test sentence; 0, 1, 2 for the usual three runs. Default 0. */
  draw?: number;
  direction?: Direction;
}

export interface IclMeta extends ConlangMeta {
  pairs: number;
  draw: number;
}

/** The usual numbers of pairs: powers of two to 4096. */
export const ICL_PAIRS: readonly number[] = Array.from({ length: 13 }, (_, i) => 2 ** i);

const MOST_PAIRS = 1_000_000;
/** A small vocabulary, so that thousands of pairs show every word often. */
const WORDS = { nouns: 60, verbs: 24, adjs: 20, adps: 6 };

export type IclOptions = Omit<SampleOptions, "maxTokens"> & { maxTokens?: number };

/**
 * A test sentence after K pairs of one language, of which the pairs for a larger K begin with those for a smaller. The budget follows from K;
 * complexity is K.
 *
 * @throws {BudgetTooSmallError} if `maxTokens` is given and too small
 */
export function iclSample(options: IclOptions, params: IclParams): Sample<string[], IclMeta> {
  const { seed, index, tokenizer = utf8Bytes, overhead } = options;
  const { pairs, draw = 0 } = params;
  requireInteger("icl_scaling", "pairs", pairs, 0, MOST_PAIRS);
  requireInteger("icl_scaling", "draw", draw, 0, 1_000_000);
  const direction = directionOf(index, params.direction);
  const stream = (purpose: string): Random => streamFor(seed, "icl_scaling", index, purpose);
  const language = drawLanguage(stream("language"), LEAST_LEXEMES);
  const { grammar, name } = language;
  const keys = firstKeys(language.keys, WORDS);
  const item = drawClause(stream("test"), { grammar, keys });
  const [sentence, target] = translationOf(item, grammar, direction);
  const random = stream(`pairs/${draw}`);
  const own = pairLine(item, language);
  const lines: string[] = [];
  while (lines.length < pairs) {
    const line = pairLine(drawClause(random, { grammar, keys }), language);
    if (line !== own) lines.push(line);
  }
  const shown = pairs === 0 ? "" : `## Sentences in ${name} and English\n${lines.join("\n")}\n\n`;
  const messages = [{ role: "user" as const, content: shown + translationTask(name, direction, sentence) }];
  const reserve = (options.reserve ?? CONLANG_RESERVE) + (options.thinkingBudget ?? 0);
  const maxTokens = options.maxTokens ?? countPrompt(messages, tokenizer, overhead) + reserve;
  return assembleSample<string[], Omit<IclMeta, keyof SampleMeta>>({
    task: "conlang",
    options: { ...options, maxTokens },
    params: { icl: true, pairs, draw, direction },
    complexity: pairs,
    units: { tokensOf: () => undefined },
    finite: true,
    reserve: CONLANG_RESERVE,
    target,
    render: () => messages,
    meta: () => ({
      grammar: restrictLexicon(grammar, lexemesOf([item])),
      item,
      direction,
      condition: "pairs",
      language: name,
      composed: [],
      book: index,
      pairs,
      draw,
    }),
  }) as Sample<string[], IclMeta>;
}

/**
 * The sample with the most pairs that fit, of the usual numbers: the longer the context, the more examples to learn from.
 *
 * @throws {BudgetTooSmallError} if `maxTokens` is too small for one pair
 */
export function longestIclSample(
  options: SampleOptions,
  params: Omit<IclParams, "pairs"> = {},
): Sample<string[], IclMeta> {
  const [first, ...more] = ICL_PAIRS as [number, ...number[]];
  let longest = iclSample(options, { ...params, pairs: first });
  for (const pairs of more) {
    try {
      longest = iclSample(options, { ...params, pairs });
    } catch (error) {
      if (error instanceof BudgetTooSmallError) break;
      throw error;
    }
  }
  return longest;
}
