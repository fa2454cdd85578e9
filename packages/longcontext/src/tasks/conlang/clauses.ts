/** Clauses drawn at random, and the features by which one is told to be new. */
import type { Random } from "@llmeff/data";
import { GenerationError } from "../../errors.js";
import { chance, pick } from "../../random.js";
import type { Clause, Grammar, GrammaticalNumber, NounPhrase, Tense } from "./grammar.js";
import type { LexemeKeys } from "./language.js";

/** What a clause may show beside its words. */
export const FEATURES = [
  "past",
  "fut",
  "neg",
  "q",
  "obl",
  "subj.pl",
  "subj.adj",
  "subj.poss",
  "obj.pl",
  "obj.adj",
  "obj.poss",
] as const;

export type Feature = (typeof FEATURES)[number];

const ATTEMPTS = 1000;

export function featuresOf(clause: Clause): Set<Feature> {
  const { subj, obj } = clause;
  const shown: Record<Feature, boolean> = {
    past: clause.tense === "past",
    fut: clause.tense === "fut",
    neg: clause.neg === true,
    q: clause.q === true,
    obl: clause.obl !== undefined,
    "subj.pl": subj.num === "pl",
    "subj.adj": subj.adj !== undefined,
    "subj.poss": subj.poss !== undefined,
    "obj.pl": obj?.num === "pl",
    "obj.adj": obj?.adj !== undefined,
    "obj.poss": obj?.poss !== undefined,
  };
  return new Set(FEATURES.filter((feature) => shown[feature]));
}

/** Whether the clause shows all features of one of the sets. */
function showsAllOf(clause: Clause, sets: readonly (readonly Feature[])[]): boolean {
  const features = featuresOf(clause);
  return sets.some((set) => set.every((feature) => features.has(feature)));
}

export interface ClauseRequest {
  grammar: Grammar;
  /** Words to draw from. */
  keys: LexemeKeys;
  /** Features that the clause must show. */
  wanted?: readonly Feature[];
  /** Sets of features that it must not show together. */
  unseen?: readonly (readonly Feature[])[];
}

/** A clause with the wanted features, the others as chance has it. */
export function drawClause(random: Random, request: ClauseRequest): Clause {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const clause = drawOnce(random, request);
    if (!showsAllOf(clause, request.unseen ?? [])) return clause;
  }
  throw new GenerationError(`[conlang] no example in ${ATTEMPTS} draws avoids the features that tests combine.`);
}

function drawOnce(random: Random, { grammar, keys, wanted = [] }: ClauseRequest): Clause {
  const has = (feature: Feature, otherwise: number): boolean => wanted.includes(feature) || chance(random, otherwise);
  const needsObject = wanted.some((feature) => feature.startsWith("obj."));
  const phrase = (role: "subj" | "obj" | "obl"): NounPhrase => {
    const flag = (name: "pl" | "adj" | "poss", otherwise: number): boolean =>
      role === "obl" ? chance(random, otherwise) : has(`${role}.${name}`, otherwise);
    const num: GrammaticalNumber = flag("pl", 0.4) ? "pl" : "sg";
    const adj = flag("adj", 0.3) ? { adj: pick(random, keys.adjs) } : {};
    if (flag("poss", 0.15)) return { noun: pick(random, keys.nouns), num, ...adj, poss: possessor(random, keys) };
    return { noun: pick(random, keys.nouns), num, ...adj, ...(chance(random, 0.5) ? { def: true } : {}) };
  };
  const verbs = needsObject ? keys.verbs.filter((verb) => grammar.verbs[verb]!.trans) : keys.verbs;
  const verb = pick(random, verbs);
  return {
    subj: phrase("subj"),
    verb,
    tense: drawTense(random, wanted),
    ...(grammar.verbs[verb]!.trans ? { obj: phrase("obj") } : {}),
    ...(has("obl", 0.3) ? { obl: { adp: pick(random, keys.adps), np: phrase("obl") } } : {}),
    ...(has("neg", 0.2) ? { neg: true } : {}),
    ...(has("q", 0.2) ? { q: true } : {}),
  };
}

function drawTense(random: Random, wanted: readonly Feature[]): Tense {
  if (wanted.includes("past")) return "past";
  return wanted.includes("fut") ? "fut" : pick(random, ["past", "pres", "fut"] as const);
}

function possessor(random: Random, keys: LexemeKeys): NounPhrase {
  return {
    noun: pick(random, keys.nouns),
    num: chance(random, 0.3) ? "pl" : "sg",
    ...(chance(random, 0.2) ? { adj: pick(random, keys.adjs) } : {}),
    ...(chance(random, 0.5) ? { def: true } : {}),
  };
}

/** `count` features that can stand together in one clause. */
export function drawCombination(random: Random, count: number): Feature[] {
  const tense = pick(random, ["past", "fut"] as const);
  const compatible = FEATURES.filter((feature) => feature !== (tense === "past" ? "fut" : "past"));
  return random.shuffle(compatible).slice(0, count);
}

/** All lexemes of clauses, each once. */
export function lexemesOf(clauses: readonly Clause[]): LexemeKeys {
  const phrases = clauses.flatMap(({ subj, obj, obl }) => [subj, obj, obl?.np].flatMap(withPossessors));
  const unique = (words: (string | undefined)[]): string[] => [
    ...new Set(words.filter((word): word is string => word !== undefined)),
  ];
  return {
    nouns: unique(phrases.map(({ noun }) => noun)),
    verbs: unique(clauses.map(({ verb }) => verb)),
    adjs: unique(phrases.map(({ adj }) => adj)),
    adps: unique(clauses.map(({ obl }) => obl?.adp)),
  };
}

function withPossessors(np: NounPhrase | undefined): NounPhrase[] {
  return np === undefined ? [] : [np, ...withPossessors(np.poss)];
}
