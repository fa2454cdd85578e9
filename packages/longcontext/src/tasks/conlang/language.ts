/** A language drawn at random: sounds, grammar and lexicon. */
import type { Random } from "@llmeff/data";
import { chance, pick, pickSome } from "../../random.js";
import { ADJECTIVES } from "../../scribe/vocabulary/modifiers.js";
import { NOUNS, type Noun } from "../../scribe/vocabulary/nouns.js";
import { VERBS } from "../../scribe/vocabulary/verbs.js";
import type { Grammar, Lexicon } from "./grammar.js";

export const LEAST_LEXEMES = 200;
export const MOST_LEXEMES = 2000;

const CONSONANTS = [..."ptkbdgmnslrfvjwzh"];
const VOWELS = [..."aeiou"];
const FINALS = [..."nrslmk"];
const ADPOSITIONS =
  "near behind under above beside inside outside beyond across around before below opposite past through towards".split(
    " ",
  );

/** English words of a lexicon, in the order in which a book takes them up. */
export interface LexemeKeys {
  nouns: string[];
  verbs: string[];
  adjs: string[];
  adps: string[];
}

export interface Language {
  name: string;
  grammar: Grammar;
  keys: LexemeKeys;
}

/** Syllables and endings from a choice of sounds; no form is given twice. */
class Sounds {
  readonly #random: Random;
  readonly #consonants: string[];
  readonly #vowels: string[];
  readonly #used = new Set<string>();

  constructor(random: Random) {
    this.#random = random;
    this.#consonants = pickSome(random, CONSONANTS, random.integer(9, 14));
    this.#vowels = pickSome(random, VOWELS, random.integer(3, 6));
  }

  #syllable(): string {
    const open = pick(this.#random, this.#consonants) + pick(this.#random, this.#vowels);
    return chance(this.#random, 0.4) ? open + pick(this.#random, FINALS) : open;
  }

  #fresh(make: () => string): string {
    for (;;) {
      const form = make();
      if (this.#used.has(form)) continue;
      this.#used.add(form);
      return form;
    }
  }

  vowel(): string {
    return pick(this.#random, this.#vowels);
  }

  stem(): string {
    return this.#fresh(() => Array.from({ length: this.#random.integer(1, 4) }, () => this.#syllable()).join(""));
  }

  /** A vowel, a vowel and a consonant, or a syllable. */
  ending(): string {
    return this.#fresh(() => {
      const shape = this.#random.integer(0, 3);
      if (shape === 0) return this.vowel();
      return shape === 1 ? this.vowel() + pick(this.#random, FINALS) : this.#syllable();
    });
  }

  /** A word that stands alone. */
  particle(): string {
    return this.#fresh(() => this.#syllable());
  }
}

function drawGrammar(random: Random, sounds: Sounds): Omit<Grammar, keyof Lexicon> {
  const ending = (): string => sounds.ending();
  const marked = chance(random, 0.5);
  const [markA, markO] = random.shuffle([marked ? ending() : "", ending()]);
  const pluralKind = pick(random, ["suffix", "prefix", "redup", "particle"] as const);
  const negKind = pick(random, ["suffix", "particle"] as const);
  return {
    order: random.shuffle(["S", "V", "O"]).join(""),
    adjOrder: pick(random, ["AN", "NA"] as const),
    adpOrder: pick(random, ["pre", "post"] as const),
    detOrder: pick(random, ["DN", "ND"] as const),
    genOrder: pick(random, ["GN", "NG"] as const),
    oblOrder: pick(random, ["initial", "preverb", "final"] as const),
    def: chance(random, 0.7) ? sounds.particle() : "",
    case: { S: "", A: markA!, O: markO!, G: ending(), L: chance(random, 0.5) ? ending() : "" },
    plural: {
      kind: pluralKind,
      form: pluralKind === "redup" ? "" : pluralKind === "suffix" ? ending() : sounds.particle(),
    },
    tense: { past: ending(), pres: chance(random, 0.5) ? ending() : "", fut: ending() },
    agreement: chance(random, 0.5) ? { sg: chance(random, 0.5) ? ending() : "", pl: ending() } : null,
    neg: { kind: negKind, form: negKind === "suffix" ? ending() : sounds.particle() },
    q: { kind: pick(random, ["initial", "final"] as const), form: sounds.particle() },
    sandhi: pick(random, ["none", "elide", `glide:${pick(random, ["j", "w", "h"])}`]),
    epenthesis: chance(random, 0.5) ? sounds.vowel() : "",
  };
}

/** English nouns: those of the vocabulary, then compounds such as `river stone`, as many as wanted. */
function drawNouns(random: Random, count: number): Noun[] {
  const simple = random.shuffle([...NOUNS]);
  const nouns = simple.slice(0, count);
  const known = new Set<string>();
  while (nouns.length < count) {
    const first = pick(random, NOUNS);
    const second = pick(random, NOUNS);
    const sg = `${first.sg} ${second.sg}`;
    if (first === second || known.has(sg)) continue;
    known.add(sg);
    nouns.push({ sg, pl: `${first.sg} ${second.pl}` });
  }
  return nouns;
}

/** A lexicon of `size` lexemes: a fifth each of verbs and adjectives as far as the vocabulary goes, some adpositions, the rest nouns. */
function drawLexicon(random: Random, sounds: Sounds, size: number): { lexicon: Lexicon; keys: LexemeKeys } {
  const fifth = Math.floor(size / 5);
  const verbs = pickSome(random, VERBS, Math.min(fifth, VERBS.length));
  const adjectives = pickSome(random, ADJECTIVES, Math.min(fifth, ADJECTIVES.length));
  const adpositions = pickSome(random, ADPOSITIONS, Math.min(ADPOSITIONS.length, Math.max(6, Math.floor(size / 40))));
  const nouns = drawNouns(random, size - verbs.length - adjectives.length - adpositions.length);
  const entries = <Item, Entry>(items: readonly Item[], key: (item: Item) => string, entry: (item: Item) => Entry) =>
    Object.fromEntries(items.map((item) => [key(item), entry(item)]));
  const word = (e: string) => ({ c: sounds.stem(), e });
  const lexicon = {
    nouns: entries(
      nouns,
      ({ sg }) => sg,
      ({ sg, pl }) => ({ c: sounds.stem(), sg, pl }),
    ),
    verbs: entries(
      verbs,
      ({ base }) => base,
      ({ base, s3, past, trans }) => ({ c: sounds.stem(), base, s3, past, trans }),
    ),
    adjs: entries(adjectives, (e) => e, word),
    adps: entries(adpositions, (e) => e, word),
  };
  const keys = {
    nouns: nouns.map(({ sg }) => sg),
    verbs: verbs.map(({ base }) => base),
    adjs: [...adjectives],
    adps: [...adpositions],
  };
  return { lexicon, keys };
}

/** A language with a lexicon of `size` lexemes; the same seed with a larger lexicon is another language. */
export function drawLanguage(random: Random, size: number): Language {
  const sounds = new Sounds(random);
  const grammar = drawGrammar(random, sounds);
  const name = sounds.stem();
  const { lexicon, keys } = drawLexicon(random, sounds, size);
  return { name: `${name.charAt(0).toUpperCase()}${name.slice(1)}ish`, grammar: { ...grammar, ...lexicon }, keys };
}

/** The grammar with only those lexemes that the keys name. */
export function restrictLexicon(grammar: Grammar, keys: LexemeKeys): Grammar {
  const only = <Entry>(entries: Record<string, Entry>, wanted: readonly string[]): Record<string, Entry> =>
    Object.fromEntries(wanted.map((key) => [key, entries[key]!]));
  return {
    ...grammar,
    nouns: only(grammar.nouns, keys.nouns),
    verbs: only(grammar.verbs, keys.verbs),
    adjs: only(grammar.adjs, keys.adjs),
    adps: only(grammar.adps, keys.adps),
  };
}
