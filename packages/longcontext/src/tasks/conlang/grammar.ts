/** A made-up language as data: what the realiser reads, what a book explains, and what a checker needs to translate again. */

export type Case = "S" | "A" | "O" | "G" | "L";
export type Tense = "past" | "pres" | "fut";
export type GrammaticalNumber = "sg" | "pl";

export interface NounEntry {
  /** Stem in the language. */
  c: string;
  sg: string;
  pl: string;
}

export interface VerbEntry {
  c: string;
  base: string;
  s3: string;
  past: string;
  trans: boolean;
}

export interface WordEntry {
  c: string;
  e: string;
}

/** Lexemes by their English key. */
export interface Lexicon {
  nouns: Record<string, NounEntry>;
  verbs: Record<string, VerbEntry>;
  adjs: Record<string, WordEntry>;
  adps: Record<string, WordEntry>;
}

export interface Grammar extends Lexicon {
  /** A permutation of S, V, O. */
  order: string;
  adjOrder: "AN" | "NA";
  adpOrder: "pre" | "post";
  detOrder: "DN" | "ND";
  genOrder: "GN" | "NG";
  oblOrder: "initial" | "preverb" | "final";
  /** The definite article, or empty. */
  def: string;
  /** Suffixes; that of G is never empty. */
  case: Record<Case, string>;
  plural: { kind: "suffix" | "prefix" | "redup" | "particle"; form: string };
  tense: Record<Tense, string>;
  /** Suffixes of the verb for the number of its subject. */
  agreement: Record<GrammaticalNumber, string> | null;
  neg: { kind: "suffix" | "particle"; form: string };
  q: { kind: "initial" | "final"; form: string };
  /** `none`, `elide` or `glide:X`. */
  sandhi: string;
  /** A vowel put between consonants, or empty. */
  epenthesis: string;
}

export interface NounPhrase {
  noun: string;
  num: GrammaticalNumber;
  adj?: string;
  /** A phrase with a possessor has no `def`. */
  poss?: NounPhrase;
  def?: boolean;
}

export interface Clause {
  subj: NounPhrase;
  verb: string;
  tense: Tense;
  obj?: NounPhrase;
  obl?: { adp: string; np: NounPhrase };
  neg?: boolean;
  q?: boolean;
}
