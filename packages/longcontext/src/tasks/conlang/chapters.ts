/** The grammar of a language in words, chapter by chapter, with glossed examples. */

import type { Feature } from "./clauses.js";
import { englishSentence } from "./english.js";
import type { Clause, Grammar } from "./grammar.js";
import { constructedSentence, glossedWords } from "./realize.js";

export interface Chapter {
  title: string;
  rules: string[];
  /** Features that the examples show, one each. */
  shows: readonly Feature[];
}

const ending = (suffix: string): string => (suffix === "" ? "no ending" : `the ending -${suffix}`);

function orderRule(order: string): string {
  const names: Readonly<Record<string, string>> = { S: "subject", V: "verb", O: "object" };
  return [...order].map((part) => names[part]).join(", then ");
}

const PLURALS: Readonly<Record<Grammar["plural"]["kind"], (form: string) => string>> = {
  suffix: (form) => `A noun becomes plural by the ending -${form}, put before any case ending.`,
  prefix: (form) => `A noun becomes plural by ${form}- in front of the stem, with no change of sounds there.`,
  redup: () => "A noun becomes plural by repeating the beginning of its stem, up to and including the first vowel.",
  particle: (form) =>
    `A noun becomes plural by the separate word ${form} right after it; the noun keeps its case ending.`,
};

const OBLIQUES: Readonly<Record<Grammar["oblOrder"], string>> = {
  initial: "Such a phrase stands at the beginning of the clause.",
  preverb: "Such a phrase stands immediately before the verb, and before its negation word if there is one.",
  final: "Such a phrase stands at the end of the clause.",
};

function soundRules({ sandhi, epenthesis }: Grammar): string[] {
  const vowels =
    sandhi === "none"
      ? "When a vowel (a, e, i, o, u) of a stem meets a vowel of an ending, both stay."
      : sandhi === "elide"
        ? "When a stem ends in a vowel (a, e, i, o, u) and an ending begins with one, the stem loses its last vowel."
        : `When a stem ends in a vowel (a, e, i, o, u) and an ending begins with one, ${sandhi.slice("glide:".length)} is put between them.`;
  const consonants =
    epenthesis === ""
      ? "When a consonant meets a consonant, nothing is put between them."
      : `When a stem ends in a consonant and an ending begins with one, ${epenthesis} is put between them.`;
  return [vowels, consonants, "Endings are put on one after another, and the rules apply at each of them."];
}

function tenseRules({ tense, agreement, neg }: Grammar): string[] {
  const agree =
    agreement === null
      ? "The verb does not change with its subject."
      : `After the tense the verb takes ${ending(agreement.sg)} with a singular subject and ${ending(agreement.pl)} with a plural one.`;
  return [
    `The verb has ${ending(tense.past)} in the past, ${ending(tense.pres)} in the present and ${ending(tense.fut)} in the future.`,
    agree,
    ...(neg.kind === "suffix" ? ["An ending for negation comes last."] : []),
  ];
}

/** All that is needed to translate. */
export function grammarChapters(grammar: Grammar): Chapter[] {
  const { case: cases, plural, neg, q, def } = grammar;
  return [
    {
      title: "Word order",
      rules: [
        `The order of a clause is ${orderRule(grammar.order)}. Without an object the other two keep their order.`,
        "All words are written in small letters; a sentence ends with a full stop, a question with a question mark.",
      ],
      shows: [],
    },
    {
      title: "Sounds that meet",
      rules: soundRules(grammar),
      shows: [],
    },
    {
      title: "Cases",
      rules: [
        `The subject of a verb without an object has ${ending(cases.S)} (S); with an object it has ${ending(cases.A)} (A).`,
        `The object has ${ending(cases.O)} (O).`,
      ],
      shows: ["obj.pl"],
    },
    { title: "Plural", rules: [PLURALS[plural.kind](plural.form)], shows: ["subj.pl", "obj.pl"] },
    {
      title: "Definiteness",
      rules:
        def === ""
          ? ["There are no articles: a noun may be definite or not."]
          : [
              `The word ${def} means "the". It stands ${grammar.detOrder === "DN" ? "before" : "after"} the noun with all that belongs to it. There is no word for "a" or "some".`,
            ],
      shows: [],
    },
    {
      title: "Adjectives",
      rules: [`An adjective stands ${grammar.adjOrder === "AN" ? "before" : "after"} its noun and never changes.`],
      shows: ["subj.adj", "obj.adj"],
    },
    {
      title: "Possession",
      rules: [
        `The possessor has ${ending(cases.G)} (G) and stands with all its words ${grammar.genOrder === "GN" ? "before" : "after"} the noun and its adjective.`,
        "A noun with a possessor has no word for the.",
      ],
      shows: ["subj.poss", "obj.poss"],
    },
    {
      title: "Place",
      rules: [
        `A word of place stands ${grammar.adpOrder === "pre" ? "before" : "after"} its noun phrase, whose noun has ${ending(cases.L)} (L).`,
        OBLIQUES[grammar.oblOrder],
      ],
      shows: ["obl"],
    },
    { title: "Verbs", rules: tenseRules(grammar), shows: ["past", "fut"] },
    {
      title: "Negation",
      rules: [
        neg.kind === "suffix"
          ? `A verb is negated by the ending -${neg.form}, after all others.`
          : `A verb is negated by the separate word ${neg.form} right before it.`,
      ],
      shows: ["neg"],
    },
    {
      title: "Questions",
      rules: [
        `A question has the word ${q.form} at the very ${q.kind === "initial" ? "beginning" : "end"}; the order stays.`,
      ],
      shows: ["q"],
    },
  ];
}

/** A sentence, word by word, and its English. */
export function glossedExample(clause: Clause, grammar: Grammar): string {
  const words = glossedWords(clause, grammar).map(({ form, gloss }) => `${form} (${gloss})`);
  return `  ${constructedSentence(clause, grammar)}\n    ${words.join(" ")}\n    ${englishSentence(clause, grammar)}`;
}
