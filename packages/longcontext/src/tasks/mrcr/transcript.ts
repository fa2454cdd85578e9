/** The chat of an MRCR sample: relevant groups of replies, near-misses, and filler, apart from the length. */
import type { Random } from "@llmeff/data";
import { GenerationError } from "../../errors.js";
import { pick, pickSome, streamFor } from "../../random.js";
import { DistinctTexts } from "../../scribe/distinct-texts.js";
import { FORMAT_NAMES } from "../../scribe/formats.js";
import { STYLE_NAMES } from "../../scribe/styles.js";
import { type TextKey, writeText } from "../../scribe/text.js";
import { TOPICS } from "../../scribe/vocabulary/topics.js";

export interface Turn {
  key: TextKey;
  reply: string;
}

export interface TranscriptShape {
  /** Replies to each relevant key. */
  needles: number;
  /** 2: all texts are plain; 3: the style is a part of the key. */
  keyDepth: 2 | 3;
  /** Relevant keys, each asked about once. */
  queries: number;
}

const ATTEMPTS = 100;

const keyName = ({ format, topic, style }: TextKey): string => `${format}|${topic}|${style}`;

/** Two of the three parts are the key's own. */
const NEAR_MISSES = {
  format: (random: Random, key: TextKey): TextKey => ({
    ...key,
    format: pick(
      random,
      FORMAT_NAMES.filter((format) => format !== key.format),
    ),
  }),
  topic: (random: Random, key: TextKey, topics: readonly string[]): TextKey => ({
    ...key,
    topic: pick(random, topics),
  }),
  style: (random: Random, key: TextKey): TextKey => ({
    ...key,
    style: pick(
      random,
      STYLE_NAMES.filter((style) => style !== key.style),
    ),
  }),
};

/**
 * Turns that must be in the transcript (`items`, in order: the replies of every group, mixed, and one near-miss of every key) and the
 * stream of filler, which begins with the other near-misses. Filler topics are not those of relevant keys.
 */
export class Transcript {
  readonly keys: readonly TextKey[];
  readonly items: readonly Turn[];
  readonly #replies: readonly (readonly string[])[];
  readonly #texts = new DistinctTexts();
  readonly #shape: TranscriptShape;
  readonly #filler: Random;
  readonly #fillerTopics: readonly string[];
  readonly #nearMisses: TextKey[];

  constructor(seed: number, transcript: number, shape: TranscriptShape) {
    const { needles, keyDepth, queries } = shape;
    const stream = (purpose: string): Random =>
      streamFor(seed, "mrcr", transcript, `${needles}/${keyDepth}/${queries}/${purpose}`);
    this.#shape = shape;
    const random = stream("relevant");
    const topics = random.shuffle([...TOPICS]);
    this.#fillerTopics = topics.slice(queries);
    this.keys = topics.slice(0, queries).map((topic) => this.#drawKey(random, topic));
    this.#replies = this.keys.map((key) => Array.from({ length: needles }, () => this.#newText(random, key)));
    const misses = this.keys.map((key) => this.#missesOf(random, key));
    const ordered = random.shuffle(this.keys.flatMap((_, group) => new Array<number>(needles).fill(group)));
    const next = new Array<number>(queries).fill(0);
    const relevant = ordered.map((group) => ({
      key: this.keys[group]!,
      reply: this.#replies[group]![next[group]!++]!,
    }));
    const always = misses.map(([first]) => ({ key: first!, reply: this.#newText(random, first!) }));
    this.items = mix(random, relevant, always);
    this.#nearMisses = random.shuffle(misses.flatMap((kinds) => kinds.slice(1)));
    this.#filler = stream("filler");
  }

  /** Replies to the `query`-th key, in the order of the chat. */
  replies(query: number): readonly string[] {
    return this.#replies[query]!;
  }

  /** The `i`-th turn of filler; to be asked for in order. */
  fillerTurn(i: number): Turn {
    const key = this.#nearMisses[i] ?? this.#drawKey(this.#filler, pick(this.#filler, this.#fillerTopics));
    return { key, reply: this.#newText(this.#filler, key) };
  }

  #drawKey(random: Random, topic: string): TextKey {
    const style = this.#shape.keyDepth === 2 ? "plain" : pick(random, STYLE_NAMES);
    return { format: pick(random, FORMAT_NAMES), topic, style };
  }

  /** One key of every kind of near-miss, in random order. */
  #missesOf(random: Random, key: TextKey): TextKey[] {
    const kinds = this.#shape.keyDepth === 2 ? (["format", "topic"] as const) : (["format", "topic", "style"] as const);
    return pickSome(random, kinds, kinds.length).map((kind) => NEAR_MISSES[kind](random, key, this.#fillerTopics));
  }

  #newText(random: Random, key: TextKey): string {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const text = writeText(random, key);
      if (this.#texts.accept(keyName(key), text)) return text;
    }
    throw new GenerationError(`[mrcr] no new ${key.format} about ${key.topic} was found in ${ATTEMPTS} attempts.`);
  }
}

/** Both lists in one, each in its order. */
function mix<Item>(random: Random, first: readonly Item[], second: readonly Item[]): Item[] {
  const turns = random.shuffle([...first.map(() => 0), ...second.map(() => 1)]);
  const next = [0, 0];
  return turns.map((which) => (which === 0 ? first : second)[next[which]!++]!);
}
