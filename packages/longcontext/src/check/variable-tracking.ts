import type { Sample } from "../sample.js";
import { lastLineAfter, type Solution } from "./solution.js";

const QUESTION = /^Which variables hold the value (\d+) after the last line\?/;

/** Follows the assignments from the last line back: a variable's value is that of its last assignment, as of that line. */
export function solveVariableTracking({ messages }: Sample): Solution {
  const text = messages.at(-1)!.content;
  const value = QUESTION.exec(lastLineAfter(text, "Question: ") ?? "")?.[1];
  if (value === undefined) return { answer: undefined, problems: ["there is no question"] };
  const assignments = [...text.matchAll(/^VAR ([A-Z]{5}) = (.+)$/gm)].map(([, name, source]) => ({
    name: name!,
    source: source!,
  }));
  const valueAt = (name: string, before: number): string | undefined => {
    const at = assignments.findLastIndex((assignment, i) => i < before && assignment.name === name);
    const source = assignments[at]?.source;
    return source?.startsWith("VAR ") ? valueAt(source.slice("VAR ".length), at) : source;
  };
  const names = [...new Set(assignments.map(({ name }) => name))];
  return { answer: names.filter((name) => valueAt(name, assignments.length) === value), problems: [] };
}
