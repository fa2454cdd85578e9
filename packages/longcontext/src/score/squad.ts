/** Exact match and F1 of short answers, as the evaluation script of SQuAD (arXiv:1606.05250) computes them. */
import { OptionError } from "@llmeff/native/errors";
import { splitWords } from "./unicode-text.js";

const ASCII_PUNCTUATION = /[!-/:-@[-`{-~]/g;
const ARTICLE = /(?<![\p{L}\p{N}_])(?:a|an|the)(?![\p{L}\p{N}_])/gu;

export interface SquadScore {
  /** 1 if the normalised texts are equal, else 0. */
  exactMatch: number;
  /** F1 of the words as multisets. */
  f1: number;
}

/**
 * The better of the scores against each accepted answer, separately for exact match and F1. Case, ASCII punctuation, the articles and runs of white
 * space don't count; two texts of which nothing is left are equal.
 *
 * @throws {OptionError} without accepted answers
 *
 * @example
 * squadScore("The Eiffel Tower", ["Eiffel tower"]); // { exactMatch: 1, f1: 1 }
 */
export function squadScore(response: string, accepted: readonly string[]): SquadScore {
  if (accepted.length === 0) throw new OptionError("[squadScore] needs at least one accepted answer; received none.");
  const words = normalised(response);
  const scores = accepted.map((answer) => compare(words, normalised(answer)));
  return {
    exactMatch: Math.max(...scores.map(({ exactMatch }) => exactMatch)),
    f1: Math.max(...scores.map(({ f1 }) => f1)),
  };
}

function normalised(text: string): string[] {
  return splitWords(text.toLowerCase().replace(ASCII_PUNCTUATION, "").replace(ARTICLE, " "));
}

function compare(words: readonly string[], wanted: readonly string[]): SquadScore {
  const exactMatch = words.join(" ") === wanted.join(" ") ? 1 : 0;
  if (words.length === 0 || wanted.length === 0) return { exactMatch, f1: exactMatch };
  const left = new Map<string, number>();
  for (const word of wanted) left.set(word, (left.get(word) ?? 0) + 1);
  let common = 0;
  for (const word of words) {
    const count = left.get(word) ?? 0;
    if (count === 0) continue;
    left.set(word, count - 1);
    common++;
  }
  return { exactMatch, f1: (2 * common) / (words.length + wanted.length) };
}
