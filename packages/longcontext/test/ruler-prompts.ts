/** Answers to prompts of RULER itself, worked out from the prompt alone. */
import { holdersOf } from "../src/tasks/variable-tracking/assignments.js";

const NEEDLE = /One of the special magic (?:number|uuid)s for (\S+) is: (\S+)\./g;
const TRACKING = "Memorize and track";

export interface ChainQuestion {
  lines: string[];
  value: string;
  /** Names that the prompt itself gives, in a solved example. */
  shown: string[];
}

export function answersOf(task: string, input: string): string[] {
  if (task.startsWith("niah")) return needles(input);
  if (task.startsWith("vt")) {
    const { lines, value } = chainQuestions(input).at(-1)!;
    return holdersOf(lines, value);
  }
  // The last list of a prompt is the one that is asked about; before it there may be a solved one.
  const [list] = input.slice(input.lastIndexOf(task === "cwe" ? "\n1. " : "coded words. ")).split("\nQuestion:");
  return task === "cwe"
    ? mostCommon(list!.matchAll(/\d+\. (\S+)/g), 10)
    : mostCommon(list!.matchAll(/\b([a-z]{6})\b/g), 3);
}

/** Values of all needles whose key stands in the question, which is the last line. */
function needles(input: string): string[] {
  const question = input.slice(input.lastIndexOf("\n"));
  const asked = new Set(question.match(/[\w-]+/g));
  return [...input.matchAll(NEEDLE)].flatMap(([, key, value]) => (asked.has(key!) ? [value!] : []));
}

/** The solved examples of a prompt and, last, the question. */
export function chainQuestions(input: string): ChainQuestion[] {
  return input
    .split(TRACKING)
    .slice(1)
    .map((part) => ({
      lines: part.split("\n"),
      value: /assigned the value (\d+) in the text/.exec(part)![1]!,
      shown: /they are: ([A-Z ]+)/.exec(part)?.[1]?.trim().split(/ +/) ?? [],
    }));
}

function mostCommon(matches: Iterable<RegExpMatchArray>, count: number): string[] {
  const counts = new Map<string, number>();
  for (const [, word] of matches) counts.set(word!, (counts.get(word!) ?? 0) + 1);
  return [...counts]
    .sort(([, a], [, b]) => b - a)
    .slice(0, count)
    .map(([word]) => word);
}
