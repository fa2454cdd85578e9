/** A book about a language: grammar, dictionary and sentences, as long as wanted. */
import type { Random } from "@llmeff/data";
import { chance } from "../../random.js";
import { type Selection, selectedUnits, type UnitStream, unitAt } from "../../tokens/budget.js";
import { interleaved } from "../../tokens/placement.js";
import type { Tokenizer } from "../../tokens/tokenizer.js";
import { UnitCounter } from "../../tokens/unit-counter.js";
import { glossedExample, grammarChapters } from "./chapters.js";
import { drawClause, type Feature, featuresOf, lexemesOf } from "./clauses.js";
import { englishSentence } from "./english.js";
import { EXTRA_CHAPTERS, extraChapter } from "./extra-chapters.js";
import type { Clause } from "./grammar.js";
import type { Language, LexemeKeys } from "./language.js";
import { constructedSentence } from "./realize.js";

/**
 * `full`: all; `half`: the first half of the grammar's chapters, with dictionary and sentences; `none`: nothing; `rules-only`: chapters without
 * examples, and the dictionary; `examples-only`: sentences alone. The last two tell explanation from copying.
 */
export const CONDITIONS = ["none", "half", "full", "rules-only", "examples-only"] as const;

export type Condition = (typeof CONDITIONS)[number];

const EXAMPLES_PER_FEATURE = 2;
const LEAST_EXAMPLES = 2;
/** One appendix after so many units. */
const UNITS_PER_APPENDIX = 40;

export interface DictionaryEntry {
  c: string;
  english: string;
  kind: "noun" | "verb" | "adjective" | "place word";
}

export type Unit =
  | { kind: "entry"; entry: DictionaryEntry }
  | { kind: "pair"; text: string }
  | { kind: "chapter"; text: string };

export interface BookOptions {
  language: Language;
  condition: Condition;
  /** Clauses that will be asked. */
  tests: readonly Clause[];
  /** Sets of features that no example shows together. */
  unseen: readonly (readonly Feature[])[];
  /** How many lexemes of each kind examples of the grammar use, the first of the lexicon. */
  core: LexemeKeys;
  stream: (purpose: string) => Random;
  tokenizer: Tokenizer;
}

/** A sentence and its translation. Joined, so that long books hold flat strings and not their parts. */
export function pairLine(clause: Clause, { grammar }: Language): string {
  return [constructedSentence(clause, grammar), englishSentence(clause, grammar)].join(" = ");
}

function entryOf(kind: keyof LexemeKeys, key: string, { grammar }: Language): DictionaryEntry {
  switch (kind) {
    case "nouns":
      return { c: grammar.nouns[key]!.c, english: grammar.nouns[key]!.sg, kind: "noun" };
    case "verbs":
      return { c: grammar.verbs[key]!.c, english: `to ${grammar.verbs[key]!.base}`, kind: "verb" };
    case "adjs":
      return { c: grammar.adjs[key]!.c, english: grammar.adjs[key]!.e, kind: "adjective" };
    case "adps":
      return { c: grammar.adps[key]!.c, english: grammar.adps[key]!.e, kind: "place word" };
  }
}

const KINDS = ["nouns", "verbs", "adjs", "adps"] as const satisfies readonly (keyof LexemeKeys)[];

function entriesOf(keys: LexemeKeys, language: Language): DictionaryEntry[] {
  return KINDS.flatMap((kind) => keys[kind].map((key) => entryOf(kind, key, language)));
}

/** Both lists without words twice. */
function union(a: LexemeKeys, b: LexemeKeys): LexemeKeys {
  const join = (kind: keyof LexemeKeys): string[] => [...new Set([...a[kind], ...b[kind]])];
  return { nouns: join("nouns"), verbs: join("verbs"), adjs: join("adjs"), adps: join("adps") };
}

/**
 * The book's fixed part holds all rules, the words of its examples and of the tests, and sentences that show every feature and every word
 * of the tests; units are further words, sentences and appendices, which no test needs.
 */
export class Book implements UnitStream {
  readonly #options: BookOptions;
  readonly #hasRules: boolean;
  readonly #hasExamples: boolean;
  readonly #chapters: string[];
  readonly #entries: DictionaryEntry[];
  readonly #pairs: string[];
  readonly #positions: number[];
  readonly #units: Unit[] = [];
  readonly #tokens: number[] = [];
  readonly #counter: UnitCounter;
  readonly #next: Generator<Unit>;

  constructor(options: BookOptions) {
    const { language, condition, tests, core, stream } = options;
    this.#options = options;
    this.#counter = new UnitCounter(options.tokenizer);
    this.#hasRules = condition !== "none" && condition !== "examples-only";
    this.#hasExamples = condition !== "none" && condition !== "rules-only";
    const fixed = union(core, lexemesOf(tests));
    this.#chapters = this.#hasRules ? this.#writeChapters(stream("chapters")) : [];
    this.#entries = this.#hasRules ? entriesOf(fixed, language) : [];
    const random = stream("examples");
    this.#pairs = this.#hasExamples ? this.#coverage(random).map((clause) => pairLine(clause, language)) : [];
    this.#positions = this.#pairs.map(() => random.uniform()).sort((a, b) => a - b);
    this.#next = this.#generate(stream(`units/${condition}`), fixed);
  }

  #writeChapters(random: Random): string[] {
    const { language, condition, unseen, core } = this.#options;
    const { grammar } = language;
    const all = grammarChapters(grammar).map(({ title, rules, shows }, i) => {
      const wanted = shows.flatMap((feature) => new Array<Feature[]>(EXAMPLES_PER_FEATURE).fill([feature]));
      while (wanted.length < LEAST_EXAMPLES) wanted.push([]);
      const examples = wanted.map((features) =>
        glossedExample(drawClause(random, { grammar, keys: core, wanted: features, unseen }), grammar),
      );
      const lines = condition === "rules-only" ? rules : [...rules, ...examples];
      return `### ${i + 1}. ${title}\n${lines.join("\n")}`;
    });
    return condition === "half" ? all.slice(0, Math.ceil(all.length / 2)) : all;
  }

  /** For every feature and every word of the tests a sentence that has it. */
  #coverage(random: Random): Clause[] {
    const { language, tests, unseen, core } = this.#options;
    const { grammar } = language;
    const features = new Set(tests.flatMap((clause) => [...featuresOf(clause)]));
    const byFeature = [...features].map((feature) =>
      drawClause(random, { grammar, keys: core, wanted: [feature], unseen }),
    );
    const words = lexemesOf(tests);
    const byWord = KINDS.flatMap((kind) =>
      words[kind].map((word) => {
        const keys = { ...core, [kind]: [word] };
        const wanted: Feature[] = kind === "adjs" ? ["subj.adj"] : kind === "adps" ? ["obl"] : [];
        return drawClause(random, { grammar, keys, wanted, unseen });
      }),
    );
    return random.shuffle([...byFeature, ...byWord]);
  }

  /** Words until the lexicon ends, sentences without end, an appendix now and then. */
  *#generate(random: Random, fixed: LexemeKeys): Generator<Unit> {
    const { language, unseen, core } = this.#options;
    const { grammar } = language;
    const known = union(core, { nouns: [], verbs: [], adjs: [], adps: [] });
    const rest = random.shuffle(
      KINDS.flatMap((kind) =>
        language.keys[kind].filter((key) => !fixed[kind].includes(key)).map((key) => ({ kind, key })),
      ),
    );
    let appendices = 0;
    for (let i = 1; this.#hasRules || this.#hasExamples; i++) {
      if (this.#hasRules && i % UNITS_PER_APPENDIX === 0 && appendices < EXTRA_CHAPTERS) {
        yield { kind: "chapter", text: extraChapter(random, language, appendices++) };
      }
      const wantsWord = this.#hasRules && (!this.#hasExamples || chance(random, 0.6));
      const next = wantsWord ? rest.pop() : undefined;
      if (next !== undefined) {
        known[next.kind].push(next.key);
        yield { kind: "entry", entry: entryOf(next.kind, next.key, language) };
      } else if (this.#hasExamples) {
        yield { kind: "pair", text: pairLine(drawClause(random, { grammar, keys: known, unseen }), language) };
      } else if (rest.length === 0) return;
    }
  }

  tokensOf(i: number): number | undefined {
    while (this.#units.length <= i) {
      const next = this.#next.next();
      if (next.done === true) return undefined;
      this.#units.push(next.value);
      this.#tokens.push(this.#counter.count(`${this.#unitText(next.value)}\n`));
    }
    return this.#tokens[i];
  }

  #unitText(unit: Unit): string {
    return unit.kind === "entry" ? `${toEnglish(unit.entry)}\n${fromEnglish(unit.entry)}` : unit.text;
  }

  /** The book in pieces, each section followed by a blank line; nothing for the condition `none`. */
  *pieces(selection: Selection): Generator<string> {
    const { name } = this.#options.language;
    const entries = [...this.#entries];
    const chapters = [...this.#chapters];
    let pairs = 0;
    for (const unit of this.#chosen(selection)) {
      if (unit.kind === "entry") entries.push(unit.entry);
      else if (unit.kind === "chapter") chapters.push(unit.text);
      else pairs++;
    }
    yield* section(`The grammar of ${name}`, chapters);
    yield* section(`Dictionary: ${name} to English`, entries.map(toEnglish).sort(byCodeUnits));
    yield* section(`Dictionary: English to ${name}`, entries.map(fromEnglish).sort(byCodeUnits));
    yield* section(`Sentences in ${name} and English`, this.#allPairs(selection, pairs));
  }

  *#chosen(selection: Selection): Generator<Unit> {
    for (let k = 0; k < selectedUnits(selection); k++) yield this.#units[unitAt(selection, k)]!;
  }

  *#allPairs(selection: Selection, count: number): Generator<string> {
    const units = this.#chosen(selection);
    for (const [kind, k] of interleaved(this.#positions, count)) {
      if (kind === "item") yield this.#pairs[k]!;
      else yield nextPair(units);
    }
  }
}

/** The text of the next unit that is a pair; the caller knows that there is one. */
function nextPair(units: Iterator<Unit>): string {
  for (;;) {
    const unit = units.next().value as Unit;
    if (unit.kind === "pair") return unit.text;
  }
}

/** Heading and lines, then a blank line; nothing without lines. */
function* section(title: string, lines: Iterable<string>): Generator<string> {
  let begun = false;
  for (const line of lines) {
    yield begun ? `\n${line}` : `## ${title}\n${line}`;
    begun = true;
  }
  if (begun) yield "\n\n";
}

const toEnglish = ({ c, english, kind }: DictionaryEntry): string => `${c}: ${english} (${kind})`;
const fromEnglish = ({ c, english, kind }: DictionaryEntry): string => `${english} (${kind}): ${c}`;

/** Not by a locale, so that every machine sorts alike. */
function byCodeUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
