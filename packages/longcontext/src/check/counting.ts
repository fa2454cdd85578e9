import type { Sample } from "../sample.js";
import { inOrderOf, lastLineAfter, type Solution } from "./solution.js";

/** The `k` most frequent words, and a problem if the next is as frequent. */
function mostFrequent(words: Iterable<string>, k: number, target: string | string[]): Solution {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  const ranked = [...counts].sort((a, b) => b[1] - a[1]);
  const [last, next] = [ranked[k - 1]?.[1] ?? 0, ranked[k]?.[1] ?? 0];
  const problems = last > next ? [] : [`the words of ranks ${k} and ${k + 1} both occur ${last} times`];
  return {
    answer: inOrderOf(
      target,
      ranked.slice(0, k).map(([word]) => word),
    ),
    problems,
  };
}

/** Counts the words of the numbered list. */
export function solveCommonWords({ messages, target }: Sample): Solution {
  const text = messages.at(-1)!.content;
  const k = Number(/^What are the (\d+) most common words/.exec(lastLineAfter(text, "Question: ") ?? "")?.[1]);
  const from = text.indexOf("\n1. ");
  const to = text.lastIndexOf("\n\nQuestion: ");
  if (!(k > 0) || from < 0 || to < from) return { answer: undefined, problems: ["there is no list with a question"] };
  const parts = text.slice(from + 1, to).split(" ");
  const wrong = parts.findIndex((part, i) => i % 2 === 0 && part !== `${i / 2 + 1}.`);
  const solution = mostFrequent(
    parts.filter((_, i) => i % 2 === 1),
    k,
    target,
  );
  return wrong < 0
    ? solution
    : { ...solution, problems: [...solution.problems, `the numbering breaks at ${parts[wrong]}`] };
}

/** Counts the words after the line `Text:`, without the noise. */
export function solveFrequentWords({ messages, target }: Sample): Solution {
  const text = messages.at(-1)!.content;
  const from = text.indexOf("\nText:\n");
  const to = text.lastIndexOf("\n\nQuestion: ");
  if (from < 0 || to < from) return { answer: undefined, problems: ["there is no text with a question"] };
  const words = text.slice(from + "\nText:\n".length, to).split(" ");
  const stray = words.find((word) => word !== "..." && !/^[a-z]{6}$/.test(word));
  const solution = mostFrequent(
    words.filter((word) => word !== "..."),
    3,
    target,
  );
  return stray === undefined
    ? solution
    : { ...solution, problems: [...solution.problems, `${stray} is no coded word`] };
}
