import type { Sample } from "../sample.js";
import { PASTIMES } from "../tasks/doc-qa/attributes.js";
import { lastLineAfter, occurrences, type Solution } from "./solution.js";

const TWO_HOPS = /^What is the (.+?) of the (.+?) of (.+)\?$/;
const ONE_HOP = /^What is the (.+?) of (.+)\?$/;
const BY_PASTIME = /^Which person (.+)\?$/;

type Fact = [entity: string, attribute: string, value: string];

/** The text under the heading, undefined unless there is exactly one. */
function documentOf(text: string, entity: string): string | undefined {
  const heading = `\n\n${entity}\n`;
  const at = text.indexOf(heading);
  if (at < 0 || text.indexOf(heading, at + 1) >= 0) return undefined;
  const from = at + heading.length;
  return text.slice(from, text.indexOf("\n\n", from));
}

/** Derives the answer from the facts, each of which must stand in the document of its entity. */
export function solveDocQa({ messages, meta }: Sample): Solution {
  const text = messages.at(-1)!.content;
  const facts = meta.facts as Fact[];
  const problems = facts
    .filter(([entity, , value]) => documentOf(text, entity)?.includes(value) !== true)
    .map((fact) => `the document does not tell ${fact.join(" / ")}`);
  const question = lastLineAfter(text, "Question: ") ?? "";
  const factOf = (entity: string | undefined, attribute: string): string | undefined =>
    facts.find(([name, field]) => name === entity && field === attribute)?.[2];
  const one = (answer: string | undefined): Solution => ({
    answer: answer === undefined ? undefined : [answer],
    problems,
  });
  const pastime = BY_PASTIME.exec(question)?.[1];
  if (pastime !== undefined) {
    const deed = PASTIMES.find(([, paraphrase]) => paraphrase === pastime)?.[0] ?? pastime;
    const told = occurrences(text.slice(0, text.lastIndexOf("\n\nQuestion: ")), deed);
    if (told !== 1) problems.push(`"${deed}" is told ${told} times`);
    return one(facts.find(([, , value]) => value === deed)?.[0]);
  }
  const two = TWO_HOPS.exec(question);
  if (two !== null) return one(factOf(factOf(two[3], two[2]!), two[1]!));
  const single = ONE_HOP.exec(question);
  return one(single === null ? undefined : factOf(single[2], single[1]!));
}
