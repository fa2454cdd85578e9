/**
 * The rule of BABILong (arXiv:2406.10149): of the labels that stand in the first sentence of the response and not in the question, there must be
 * the target and no other.
 */
import { OptionError } from "@llmeff/native/errors";

export interface LabelQuestion {
  /** A label, or several with commas between them, all of which must be named. */
  target: string;
  question: string;
  labels: readonly string[];
}

/**
 * Whether the response names the target and no other label. Case doesn't count; the response ends at its first `.`, `<context>` or `<example>`;
 * labels are looked for as substrings.
 *
 * @throws {OptionError} if a label is empty
 *
 * @example
 * labelExclusive({ target: "office", question: "Where is Daniel?", labels: ["garden", "office"] }, "In the office."); // true
 */
export function labelExclusive({ target, question, labels }: LabelQuestion, response: string): boolean {
  const known = labels.map((label) => label.toLowerCase());
  const wanted = wantedLabels(target.toLowerCase());
  if (known.includes("")) throw new OptionError("[labelExclusive] a label is empty; it would stand in every response.");
  const asked = question.toLowerCase();
  const answer = response.toLowerCase().split(/\.|<context>|<example>/, 1)[0]!;
  const named = new Set(known.filter((label) => answer.includes(label) && !asked.includes(label)));
  return named.size === wanted.size && [...wanted].every((label) => named.has(label));
}

/** Upstream takes a target for a list if it has a comma and more than three characters. */
function wantedLabels(target: string): Set<string> {
  return new Set(target.includes(",") && target.length > 3 ? target.split(",") : [target]);
}
