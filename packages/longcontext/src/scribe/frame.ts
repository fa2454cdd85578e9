/** Sentence frames: text with slots in braces, filled from the vocabulary. */
import type { Random } from "@llmeff/data";
import { OptionError } from "@llmeff/native/errors";
import { pick } from "../random.js";
import { NAME_COUNT, PLACE_COUNT, personName, placeName } from "./names.js";
import { ADJECTIVES, ADVERBS } from "./vocabulary/modifiers.js";
import { NOUNS } from "./vocabulary/nouns.js";
import { INTRANSITIVE_VERBS, TRANSITIVE_VERBS } from "./vocabulary/verbs.js";

const WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"] as const;

/** What a frame takes from its text. */
export interface FrameContext {
  random: Random;
  /** A plural noun phrase. */
  topic: string;
  /** Words of the rhyme class of this line. */
  rhymes?: readonly string[] | undefined;
}

export function withArticle(word: string): string {
  return `${/^[aeiou]/i.test(word) ? "an" : "a"} ${word}`;
}

export function capitalise(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Two to four digits, so that no number of a needle, which has more, can be met. */
function smallNumber(random: Random): string {
  return String(random.integer(12, 9999));
}

const transitive = (random: Random) => pick(random, TRANSITIVE_VERBS);
const intransitive = (random: Random) => pick(random, INTRANSITIVE_VERBS);

const rhymeOf = ({ random, rhymes }: FrameContext): string => pick(random, rhymes ?? NOUNS.map(({ sg }) => sg));

/** `v…` verbs take an object, `iv…` take none. */
const SLOTS: Readonly<Record<string, (context: FrameContext) => string>> = {
  n: ({ random }) => pick(random, NOUNS).sg,
  ann: ({ random }) => withArticle(pick(random, NOUNS).sg),
  Ann: ({ random }) => capitalise(withArticle(pick(random, NOUNS).sg)),
  ns: ({ random }) => pick(random, NOUNS).pl,
  adj: ({ random }) => pick(random, ADJECTIVES),
  anadj: ({ random }) => withArticle(pick(random, ADJECTIVES)),
  adv: ({ random }) => pick(random, ADVERBS),
  v: ({ random }) => transitive(random).base,
  vs: ({ random }) => transitive(random).s3,
  vd: ({ random }) => transitive(random).past,
  vp: ({ random }) => transitive(random).participle,
  iv: ({ random }) => intransitive(random).base,
  ivs: ({ random }) => intransitive(random).s3,
  ivd: ({ random }) => intransitive(random).past,
  name: ({ random }) => personName(random.integer(0, NAME_COUNT)),
  place: ({ random }) => placeName(random.integer(0, PLACE_COUNT)),
  num: ({ random }) => smallNumber(random),
  day: ({ random }) => pick(random, WEEKDAYS),
  topic: ({ topic }) => topic,
  rhyme: rhymeOf,
  arhyme: (context) => withArticle(rhymeOf(context)),
};

/** A frame ready to be filled. */
export interface Frame {
  readonly slots: readonly string[];
  fill(context: FrameContext): string;
}

/**
 * Compiles a frame.
 *
 * @param literal - changes the text between slots, as a style does; default: nothing
 * @throws {OptionError} for a slot that does not exist
 */
export function compileFrame(source: string, literal: (text: string) => string = (text) => text): Frame {
  const parts = source.split(/\{(\w+)\}/);
  const slots = parts.filter((_, i) => i % 2 === 1);
  const literals = parts.filter((_, i) => i % 2 === 0).map(literal);
  const writers = slots.map((slot) => {
    const writer = SLOTS[slot];
    if (writer === undefined) throw new OptionError(`[compileFrame] there is no slot {${slot}} in "${source}".`);
    return writer;
  });
  return {
    slots,
    fill(context) {
      let text = literals[0]!;
      for (let i = 0; i < writers.length; i++) text += writers[i]!(context) + literals[i + 1]!;
      return text;
    },
  };
}

export function compileFrames(lines: string, literal?: (text: string) => string): Frame[] {
  return lines
    .trim()
    .split("\n")
    .map((line) => compileFrame(line, literal));
}
