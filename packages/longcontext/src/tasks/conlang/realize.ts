/** From a clause to a sentence of the language, word by word with its gloss. */
import type { Case, Clause, Grammar, NounPhrase } from "./grammar.js";

export interface GlossedWord {
  form: string;
  /** English stem and the names of the endings, as in `stone-PL-A`. */
  gloss: string;
}

const isVowel = (letter: string | undefined): boolean => letter !== undefined && "aeiou".includes(letter);

/** A suffix put to a stem, with the language's changes where the two meet. */
export function attach(
  stem: string,
  suffix: string,
  { sandhi, epenthesis }: Pick<Grammar, "sandhi" | "epenthesis">,
): string {
  if (suffix === "") return stem;
  const [last, first] = [isVowel(stem.at(-1)), isVowel(suffix[0])];
  if (last && first) {
    if (sandhi === "elide") return stem.slice(0, -1) + suffix;
    return sandhi.startsWith("glide:") ? stem + sandhi.slice("glide:".length) + suffix : stem + suffix;
  }
  return !last && !first ? stem + epenthesis + suffix : stem + suffix;
}

/** The stem up to and including its first vowel. */
function firstSyllable(stem: string): string {
  const end = [...stem].findIndex(isVowel);
  return stem.slice(0, end + 1);
}

function pluralStem(stem: string, grammar: Grammar): string {
  const { kind, form } = grammar.plural;
  if (kind === "suffix") return attach(stem, form, grammar);
  if (kind === "prefix") return form + stem;
  return kind === "redup" ? firstSyllable(stem) + stem : stem;
}

function nounWords(np: NounPhrase, role: Case, grammar: Grammar): GlossedWord[] {
  const { c, sg } = grammar.nouns[np.noun]!;
  const plural = np.num === "pl";
  const particle = plural && grammar.plural.kind === "particle";
  const form = attach(plural ? pluralStem(c, grammar) : c, grammar.case[role], grammar);
  const marks = [sg, ...(plural && !particle ? ["PL"] : []), ...(grammar.case[role] === "" ? [] : [role])];
  return [{ form, gloss: marks.join("-") }, ...(particle ? [{ form: grammar.plural.form, gloss: "PL" }] : [])];
}

/** Adjective first, then possessor, then the definite word, each on its side. */
function phraseWords(np: NounPhrase, role: Case, grammar: Grammar): GlossedWord[] {
  let words = nounWords(np, role, grammar);
  if (np.adj !== undefined) {
    const { c, e } = grammar.adjs[np.adj]!;
    const adjective = { form: c, gloss: e };
    words = grammar.adjOrder === "AN" ? [adjective, ...words] : [...words, adjective];
  }
  if (np.poss !== undefined) {
    const possessor = phraseWords(np.poss, "G", grammar);
    words = grammar.genOrder === "GN" ? [...possessor, ...words] : [...words, ...possessor];
  }
  if (np.def === true && grammar.def !== "") {
    const article = { form: grammar.def, gloss: "the" };
    words = grammar.detOrder === "DN" ? [article, ...words] : [...words, article];
  }
  return words;
}

function verbWords(clause: Clause, grammar: Grammar): GlossedWord[] {
  const { c, base } = grammar.verbs[clause.verb]!;
  const { neg, agreement, tense } = grammar;
  const number = clause.subj.num;
  const negated = clause.neg === true;
  const suffixes: [string, string][] = [
    [tense[clause.tense], clause.tense.toUpperCase()],
    [agreement?.[number] ?? "", number.toUpperCase()],
    [negated && neg.kind === "suffix" ? neg.form : "", "NEG"],
  ];
  const form = suffixes.reduce((stem, [suffix]) => attach(stem, suffix, grammar), c);
  const gloss = [base, ...suffixes.filter(([suffix]) => suffix !== "").map(([, name]) => name)].join("-");
  return [...(negated && neg.kind === "particle" ? [{ form: neg.form, gloss: "NEG" }] : []), { form, gloss }];
}

function obliqueWords(clause: Clause, grammar: Grammar): GlossedWord[] {
  if (clause.obl === undefined) return [];
  const { c, e } = grammar.adps[clause.obl.adp]!;
  const adposition = { form: c, gloss: e };
  const phrase = phraseWords(clause.obl.np, "L", grammar);
  return grammar.adpOrder === "pre" ? [adposition, ...phrase] : [...phrase, adposition];
}

/** All words of a clause in order, without the final mark. */
export function glossedWords(clause: Clause, grammar: Grammar): GlossedWord[] {
  const oblique = obliqueWords(clause, grammar);
  const verb = verbWords(clause, grammar);
  const parts: Readonly<Record<string, GlossedWord[]>> = {
    S: phraseWords(clause.subj, clause.obj === undefined ? "S" : "A", grammar),
    O: clause.obj === undefined ? [] : phraseWords(clause.obj, "O", grammar),
    V: grammar.oblOrder === "preverb" ? [...oblique, ...verb] : verb,
  };
  const core = [...grammar.order].flatMap((part) => parts[part]!);
  const question = clause.q === true ? [{ form: grammar.q.form, gloss: "Q" }] : [];
  return [
    ...(grammar.q.kind === "initial" ? question : []),
    ...(grammar.oblOrder === "initial" ? oblique : []),
    ...core,
    ...(grammar.oblOrder === "final" ? oblique : []),
    ...(grammar.q.kind === "final" ? question : []),
  ];
}

/** The sentence: lower case, single spaces, ended by `.` or `?`. */
export function constructedSentence(clause: Clause, grammar: Grammar): string {
  const words = glossedWords(clause, grammar).map(({ form }) => form);
  return `${words.join(" ")}${clause.q === true ? "?" : "."}`;
}
