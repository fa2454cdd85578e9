import type { Sample } from "../sample.js";
import { lastLineAfter, occurrences, type Solution } from "./solution.js";

const NEEDLE = /^The registry code for (.+) is (\S+)\.$/gm;
const QUESTION = /^What (?:is|are) (?:the registry code|all registry codes) for (.+)\? Give the codes alone\.$/;

/** Reads all needles into a table and looks the keys of the question up. */
export function solveNiah({ messages }: Sample): Solution {
  const text = messages.at(-1)!.content;
  const question = QUESTION.exec(lastLineAfter(text, "Question: ") ?? "");
  if (question === null) return { answer: undefined, problems: ["there is no question"] };
  const values = new Map<string, string[]>();
  const seen = new Set<string>();
  const problems: string[] = [];
  for (const [, key, value] of text.matchAll(NEEDLE)) {
    values.set(key!, [...(values.get(key!) ?? []), value!]);
    if (seen.has(value!)) problems.push(`the value ${value} stands in two needles`);
    seen.add(value!);
  }
  const keys = question[1]!.split(", ");
  const answer = keys.flatMap((key) => values.get(key) ?? []);
  for (const value of answer) if (occurrences(text, value) !== 1) problems.push(`the value ${value} occurs elsewhere`);
  const missing = keys.filter((key) => !values.has(key));
  if (missing.length > 0) problems.push(`there is no needle for ${missing.join(", ")}`);
  return { answer, problems };
}
