/** From a clause to English. */
import { capitalise } from "../../scribe/frame.js";
import type { Clause, Grammar, NounPhrase } from "./grammar.js";

/** `the`, `some`, `a` or `an`; a possessor takes the article's place. */
function determiner(np: NounPhrase, next: string, grammar: Grammar): string {
  if (np.poss !== undefined) {
    const possessor = englishPhrase(np.poss, grammar);
    return `${possessor}${possessor.endsWith("s") ? "'" : "'s"}`;
  }
  if (np.def === true) return "the";
  if (np.num === "pl") return "some";
  return /^[aeiou]/.test(next) ? "an" : "a";
}

function englishPhrase(np: NounPhrase, grammar: Grammar): string {
  const noun = grammar.nouns[np.noun]![np.num];
  const words = np.adj === undefined ? [noun] : [grammar.adjs[np.adj]!.e, noun];
  return [determiner(np, words[0]!, grammar), ...words].join(" ");
}

/** The auxiliary that questions and negations need. */
function auxiliary({ tense, subj }: Clause): string {
  if (tense === "fut") return "will";
  if (tense === "past") return "did";
  return subj.num === "pl" ? "do" : "does";
}

function predicate(clause: Clause, grammar: Grammar): string {
  const { base, s3, past } = grammar.verbs[clause.verb]!;
  if (clause.neg === true) return `${auxiliary(clause)} not ${base}`;
  if (clause.tense === "fut") return `will ${base}`;
  if (clause.tense === "past") return past;
  return clause.subj.num === "pl" ? base : s3;
}

export function englishSentence(clause: Clause, grammar: Grammar): string {
  const subject = englishPhrase(clause.subj, grammar);
  const rest = [
    ...(clause.obj === undefined ? [] : [englishPhrase(clause.obj, grammar)]),
    ...(clause.obl === undefined
      ? []
      : [`${grammar.adps[clause.obl.adp]!.e} ${englishPhrase(clause.obl.np, grammar)}`]),
  ];
  const head =
    clause.q === true
      ? [auxiliary(clause), subject, ...(clause.neg === true ? ["not"] : []), grammar.verbs[clause.verb]!.base]
      : [subject, predicate(clause, grammar)];
  return `${capitalise([...head, ...rest].join(" "))}${clause.q === true ? "?" : "."}`;
}

/** Phrases of a clause that may have an article: those without a possessor. */
function articlePhrases(clause: Clause): NounPhrase[] {
  const phrases = [clause.subj, clause.obj, clause.obl?.np].filter((np) => np !== undefined);
  return phrases.flatMap((np) => (np.poss === undefined ? [np] : [np.poss])).filter((np) => np.poss === undefined);
}

/**
 * All English sentences that the language's sentence can stand for. Without a definite word it does not tell `the` from `a` or `some`, so
 * every setting of the `def` flags counts; the clause's own comes first.
 */
export function englishReferences(clause: Clause, grammar: Grammar): string[] {
  const own = englishSentence(clause, grammar);
  if (grammar.def !== "") return [own];
  const copy = structuredClone(clause);
  const phrases = articlePhrases(copy);
  const all = new Set([own]);
  for (let setting = 0; setting < 2 ** phrases.length; setting++) {
    for (const [i, np] of phrases.entries()) np.def = ((setting >> i) & 1) === 1;
    all.add(englishSentence(copy, grammar));
  }
  return [...all];
}
