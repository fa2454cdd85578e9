/** String match of RULER: the share of the wanted strings that stand in the response, letter case aside. */
import { OptionError } from "@llmeff/native/errors";
import { trimSpace } from "./unicode-text.js";

export interface StringMatchOptions {
  /**
   * `"ruler"` counts every substring, as upstream does, so that `97518009` contains `7518009`. By default a reference must not touch a
   * letter, digit or underscore.
   */
  compat?: "ruler";
}

/** What RULER does to a response first: trim, each control character to a newline, trim. */
export function postprocess(response: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it replaces
  return trimSpace(trimSpace(response).replace(/[\u0000-\u001f]/g, "\n"));
}

/**
 * Share of the references that occur in the response, 0 to 1 (upstream's score is this times 100): needles, words, variables.
 *
 * @throws {OptionError} without references, or if one is empty
 */
export function matchAll(response: string, references: readonly string[], options: StringMatchOptions = {}): number {
  const found = occurrences("matchAll", response, references, options);
  return found.filter(Boolean).length / found.length;
}

/**
 * 1 if any reference occurs in the response, else 0: answers of a question. The port of RULER in lm-evaluation-harness takes the mean over the
 * references here, so its numbers differ.
 *
 * @throws {OptionError} without references, or if one is empty
 */
export function matchPart(response: string, references: readonly string[], options: StringMatchOptions = {}): number {
  return occurrences("matchPart", response, references, options).includes(true) ? 1 : 0;
}

/** Whether `part` stands in `text` without touching `[0-9A-Za-z_]`. */
export function occursBounded(text: string, part: string): boolean {
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + 1)) {
    if (!isWord(text[at - 1]) && !isWord(text[at + part.length])) return true;
  }
  return false;
}

function isWord(char: string | undefined): boolean {
  return char !== undefined && /\w/.test(char);
}

function occurrences(
  where: string,
  response: string,
  references: readonly string[],
  { compat }: StringMatchOptions,
): boolean[] {
  if (references.length === 0 || references.includes("")) {
    throw new OptionError(
      `[${where}] needs at least one reference, none of them empty; received ${JSON.stringify(references)}.`,
    );
  }
  const text = postprocess(response).toLowerCase();
  const occurs =
    compat === "ruler" ? (part: string) => text.includes(part) : (part: string) => occursBounded(text, part);
  return references.map((reference) => occurs(reference.toLowerCase()));
}
