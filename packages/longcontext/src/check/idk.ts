import type { Sample } from "../sample.js";
import { lastLineAfter, type Solution } from "./solution.js";

const QUESTION = /^What is the (.+?) of (\S+)\?$/;
const LETTERS = ["A", "B", "C", "D"] as const;
const DONT_KNOW = "I don't know";

/**
 * The value of a choice that some sentence tells of the entity, else (D). The facts of `meta` must agree: each is told in one sentence with its
 * entity, and the asked one is among them exactly if there is an answer.
 */
export function solveIdk({ messages, meta }: Sample): Solution {
  const text = messages.at(-1)!.content;
  const end = text.lastIndexOf("\n\nQuestion: ");
  const question = QUESTION.exec(lastLineAfter(text, "Question: ") ?? "");
  if (end < 0 || question === null) return { answer: undefined, problems: ["there is no question"] };
  const [, attribute, entity] = question as unknown as [string, string, string];
  const choices = LETTERS.map((letter) => lastLineAfter(text, `(${letter}) `) ?? "");
  const facts = meta.facts as [string, string, string][];
  const context = text.slice(0, end);
  const named = (name: string): string[] => sentencesWith(context, name);
  const about = named(entity);
  const told = choices.slice(0, -1).filter((choice) => about.some((sentence) => sentence.includes(choice)));
  const problems = facts
    .filter(([name, , value]) => !named(name).some((sentence) => sentence.includes(value)))
    .map((fact) => `the messages do not tell ${fact.join(" / ")}`);
  const known = facts.filter(([name, field]) => name === entity && field === attribute).map(([, , value]) => value);
  if (known.join() !== told.join()) problems.push(`the messages tell [${told}] of what is asked, the facts [${known}]`);
  if (choices[3] !== DONT_KNOW || new Set(choices).size < LETTERS.length)
    problems.push("the choices are not four different ones");
  if (!facts.some(([name, field, value]) => name !== entity && field === attribute && choices.includes(value))) {
    problems.push("no choice is told of another entity");
  }
  return { answer: LETTERS[told.length === 0 ? 3 : choices.indexOf(told[0]!)], problems };
}

/** Sentences with a name, found around its occurrences: the text may have millions of others. */
function sentencesWith(text: string, name: string): string[] {
  const sentences: string[] = [];
  for (let at = text.indexOf(name); at >= 0; at = text.indexOf(name, at + name.length)) {
    const from = Math.max(text.lastIndexOf(". ", at), text.lastIndexOf("\n", at)) + 1;
    const stop = text.indexOf(".", at);
    sentences.push(text.slice(from, stop < 0 ? text.length : stop));
  }
  return sentences;
}
