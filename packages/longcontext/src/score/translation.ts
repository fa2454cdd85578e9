/** Translations: reading them out of a response, and their scores. */
import { chrf } from "./chrf.js";
import { cleanMarkup, stripReasoning } from "./clean-response.js";
import { splitWords, trimSpace } from "./unicode-text.js";

const QUOTES = ['""', "''", "“”", "‘’", "«»"];

/**
 * The translation in a response: the first line that isn't blank, after the last `Translation:` that has text after it, without one pair of
 * quotes around it. Empty if there is no text.
 *
 * @example
 * extractTranslation("Translation: “ko lamu”\nNotes: none"); // "ko lamu"
 */
export function extractTranslation(response: string): string {
  const text = cleanMarkup(stripReasoning(response));
  const parts = text.split(/translation:/i);
  const chosen = parts.slice(1).findLast(hasText) ?? (parts.length > 1 ? "" : text);
  const line = trimSpace(chosen.split("\n").find(hasText) ?? "");
  const quoted = line.length >= 2 && QUOTES.includes(`${line[0]}${line.at(-1)}`);
  return quoted ? trimSpace(line.slice(1, -1)) : line;
}

function hasText(part: string): boolean {
  return trimSpace(part) !== "";
}

export interface TranslationScore {
  translation: string;
  /** 0 to 100. */
  chrf: number;
  /** chrF++, 0 to 100. */
  chrfPlusPlus: number;
  /** Equal to a reference up to the white space between words. */
  exact: boolean;
}

/** Scores of a response; each is the best over the references. */
export function translationScore(response: string, references: readonly string[]): TranslationScore {
  const translation = extractTranslation(response);
  const joined = splitWords(translation).join(" ");
  return {
    translation,
    chrf: chrf(translation, references),
    chrfPlusPlus: chrf(translation, references, { wordOrder: 2 }),
    exact: references.some((reference) => splitWords(reference).join(" ") === joined),
  };
}
