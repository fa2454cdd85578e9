/** Reading the letter of a choice question out of a response. */
import { OptionError } from "@llmeff/native/errors";
import { BLANK, cleanMarkup, stripReasoning } from "./clean-response.js";
import { occursBounded } from "./string-match.js";
import { trimSpace } from "./unicode-text.js";

export const CHOICE_LETTERS = ["A", "B", "C", "D"] as const;
export type ChoiceLetter = (typeof CHOICE_LETTERS)[number];

const BRACKETED = "\\(([A-Da-d])\\)";
const CLOSED = "([A-D])(?=[).,:;\\r\\n]|$)";
/** A before a blank is mostly the article: "Answer: A dog". */
const MARKED = new RegExp(
  `(?:[Aa]nswer|ANSWER|[Cc]hoice|CHOICE|[Oo]ption|OPTION)${BLANK}*(?:(?:is|:|=)${BLANK}*)?(?:${BRACKETED}|${CLOSED}|([B-D])(?=[ \\t]))`,
  "g",
);
const LEADING = new RegExp(`^(?:${BRACKETED}|${CLOSED})`);
const ANYWHERE = new RegExp(BRACKETED, "g");

const ABOUT = "(?:mentioned|stated|specified|provided|given|included|present|revealed|described)";
const SAYS = "(?:say|mention|specify|state|provide|contain|include|reveal|give|indicate|describe)";
const CANNOT = "(?:cannot|can't|could not|couldn't)";
/** Ways to say that the text doesn't tell; a space stands for white space of any length. */
const REFUSAL = new RegExp(
  [
    "\\b(?:do not|don't) know\\b",
    `\\b${CANNOT} be (?:determined|inferred|known|answered)\\b`,
    "\\b(?:not enough|insufficient|no) (?:information|info|context|evidence)\\b",
    `(?:\\bnot|n't) (?:(?:explicitly|directly|ever) )?${ABOUT}\\b`,
    `\\b(?:does|do|did)(?: not|n't) ${SAYS}\\b`,
    "\\bunable to (?:determine|answer|tell|say)\\b",
    `\\b${CANNOT} (?:determine|answer|tell|say|know|infer)\\b`,
    "\\bimpossible to (?:know|determine|tell|say|answer)\\b",
    "\\bunknown\\b",
  ]
    .join("|")
    .replaceAll(" ", `${BLANK}+`),
);

/**
 * The letter that a response chooses, or null. In this order: the last one after "answer", "choice" or "option"; the whole text; the beginning;
 * the last `(X)`; the only choice whose text occurs; D for a refusal in free words.
 *
 * @param choices - texts of A to D; D is "I don't know"
 *
 * @example
 * extractChoice(["red", "green", "blue", "I don't know"], "The story does not mention it."); // "D"
 */
export function extractChoice(choices: readonly string[], response: string): ChoiceLetter | null {
  if (choices.length !== CHOICE_LETTERS.length) {
    throw new OptionError(`[extractChoice] choices must be the texts of A, B, C and D; received ${choices.length}.`);
  }
  const text = trimSpace(cleanMarkup(stripReasoning(response)));
  const marked = [...text.matchAll(MARKED)].at(-1);
  if (marked) return letterOf(marked);
  if (/^[A-Da-d]$/.test(text)) return text.toUpperCase() as ChoiceLetter;
  const found = LEADING.exec(text) ?? [...text.matchAll(ANYWHERE)].at(-1);
  if (found) return letterOf(found);
  const folded = fold(text);
  const named = CHOICE_LETTERS.filter((_, i) => occursBounded(folded, fold(choices[i]!)));
  if (named.length === 1) return named[0]!;
  return REFUSAL.test(folded) ? "D" : null;
}

function letterOf(match: RegExpMatchArray): ChoiceLetter {
  return match
    .slice(1)
    .find((group) => group !== undefined)!
    .toUpperCase() as ChoiceLetter;
}

function fold(text: string): string {
  return text.toLowerCase().replace(/[\u2018\u2019]/g, "'");
}
