import type { Sample } from "../sample.js";
import { englishReferences, englishSentence } from "../tasks/conlang/english.js";
import type { Clause, Grammar } from "../tasks/conlang/grammar.js";
import { constructedSentence } from "../tasks/conlang/realize.js";
import { lastLineAfter, type Solution } from "./solution.js";

/**
 * Translates the clause by the grammar, with the realiser that the golden sentences hold; the sentence must be the asked one, its
 * translation must not stand in the book, and a book with a dictionary must have every stem.
 */
export function solveConlang({ messages, meta }: Sample): Solution {
  const text = messages.at(-1)!.content;
  const grammar = meta.grammar as Grammar;
  const item = meta.item as Clause;
  const constructed = constructedSentence(item, grammar);
  const english = englishSentence(item, grammar);
  const [source, answer] =
    meta.direction === "en-x" ? [english, [constructed]] : [constructed, englishReferences(item, grammar)];
  const problems: string[] = [];
  if (lastLineAfter(text, "Sentence: ") !== source) problems.push(`the sentence asked is not "${source}"`);
  if (!text.endsWith("\nTranslation:")) problems.push("the prompt does not end in `Translation:`");
  if (text.includes(`${constructed} = `)) problems.push("the book holds the sentence with its translation");
  if (["half", "full", "rules-only"].includes(String(meta.condition))) {
    const stems = [grammar.nouns, grammar.verbs, grammar.adjs, grammar.adps].flatMap((entries) =>
      Object.values(entries).map(({ c }) => c),
    );
    const missing = stems.filter((stem) => !text.includes(`\n${stem}: `));
    if (missing.length > 0) problems.push(`the dictionary has no entry for ${missing.join(", ")}`);
  }
  return { answer, problems };
}
