/** The chat of an MRCR sample: relevant groups of replies, near-misses, and filler, apart from the length. */
import type { Random } from "@llmeff/data";
import { GenerationError } from "../../errors.js";
import { pick, pickSome, streamFor } from "../../random.js";
import { DistinctTexts } from "../../scribe/distinct-texts.js";
import type { TextKey } from "../../scribe/text.js";
import { keyName } from "../../scribe/text-pool.js";
import type { KeyDepth, TextSession, TextSource } from "../../scribe/text-source.js";

export interface Turn {
  key: TextKey;
  reply: string;
}

export interface TranscriptShape {
  /** Replies to each relevant key. */
  needles: number;
  keyDepth: KeyDepth;
  /** Relevant keys, each asked about once. */
  queries: number;
  texts: TextSource;
}

const ATTEMPTS = 100;

/**
 * Turns that must be in the transcript (`items`, in order: the replies of every group, mixed, and one near-miss of every key) and the
 * stream of filler, which begins with the other near-misses. Filler topics are not those of relevant keys.
 */
export class Transcript {
  readonly keys: readonly TextKey[];
  readonly items: readonly Turn[];
  readonly #replies: readonly (readonly string[])[];
  readonly #distinct = new DistinctTexts();
  readonly #session: TextSession;
  readonly #filler: Random;
  readonly #nearMisses: TextKey[];
  #fillerTopics: readonly string[];

  constructor(seed: number, transcript: number, { needles, keyDepth, queries, texts }: TranscriptShape) {
    const stream = (purpose: string): Random =>
      streamFor(seed, "mrcr", transcript, `${needles}/${keyDepth}/${queries}/${purpose}`);
    this.#session = texts.open(keyDepth);
    const random = stream("relevant");
    const topics = random.shuffle([...this.#session.topics]);
    this.keys = this.#drawKeys(random, topics, needles, queries);
    this.#fillerTopics = topics.filter((topic) => !this.keys.some((key) => key.topic === topic));
    this.#replies = this.keys.map((key) => Array.from({ length: needles }, () => this.#requireText(random, key)));
    const misses = this.keys.map((key) => this.#missesOf(random, key, keyDepth));
    const ordered = random.shuffle(this.keys.flatMap((_, group) => new Array<number>(needles).fill(group)));
    const next = new Array<number>(queries).fill(0);
    const relevant = ordered.map((group) => ({
      key: this.keys[group]!,
      reply: this.#replies[group]![next[group]!++]!,
    }));
    const always = misses.map(([first]) => ({ key: first!, reply: this.#requireText(random, first!) }));
    this.items = mix(random, relevant, always);
    this.#nearMisses = random.shuffle(misses.flatMap((parts) => parts.slice(1)));
    this.#filler = stream("filler");
  }

  /** Replies to the `query`-th key, in the order of the chat. */
  replies(query: number): readonly string[] {
    return this.#replies[query]!;
  }

  /** The next turn of filler; undefined when the texts have ended. */
  nextFiller(): Turn | undefined {
    for (let key = this.#nextFillerKey(); key !== undefined; key = this.#nextFillerKey()) {
      const reply = this.#newText(this.#filler, key);
      if (reply !== undefined) return { key, reply };
    }
    return undefined;
  }

  #nextFillerKey(): TextKey | undefined {
    const miss = this.#nearMisses.shift();
    if (miss !== undefined) return miss;
    while (this.#fillerTopics.length > 0) {
      const topic = pick(this.#filler, this.#fillerTopics);
      const key = this.#session.drawKey(this.#filler, topic, 1);
      if (key !== undefined) return key;
      this.#fillerTopics = this.#fillerTopics.filter((other) => other !== topic);
    }
    return undefined;
  }

  #drawKeys(random: Random, topics: readonly string[], needles: number, queries: number): TextKey[] {
    const keys: TextKey[] = [];
    for (const topic of topics) {
      const key = keys.length < queries ? this.#session.drawKey(random, topic, needles) : undefined;
      if (key !== undefined) keys.push(key);
    }
    if (keys.length === queries) return keys;
    throw new GenerationError(
      `[mrcr] ${queries} keys of different topics with ${needles} texts each are needed; the texts have ${keys.length}. Add texts, or ask for less.`,
    );
  }

  /** Keys of which two parts are the key's own, in random order of the third. */
  #missesOf(random: Random, key: TextKey, keyDepth: KeyDepth): TextKey[] {
    const parts = keyDepth === 2 ? (["format", "topic"] as const) : (["format", "topic", "style"] as const);
    const misses = pickSome(random, parts, parts.length).flatMap(
      (part) => this.#session.nearMiss(random, part, key, this.#fillerTopics) ?? [],
    );
    if (misses.length > 0) return misses;
    throw new GenerationError(
      `[mrcr] no key shares two parts with ${keyName(key)}. Add texts of other formats, topics or styles to the pool.`,
    );
  }

  #requireText(random: Random, key: TextKey): string {
    const text = this.#newText(random, key);
    if (text !== undefined) return text;
    throw new GenerationError(`[mrcr] no new text for ${keyName(key)} was found in ${ATTEMPTS} attempts.`);
  }

  #newText(random: Random, key: TextKey): string | undefined {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const text = this.#session.write(random, key);
      if (text === undefined || this.#distinct.accept(keyName(key), text)) return text;
    }
    return undefined;
  }
}

/** Both lists in one, each in its order. */
function mix<Item>(random: Random, first: readonly Item[], second: readonly Item[]): Item[] {
  const turns = random.shuffle([...first.map(() => 0), ...second.map(() => 1)]);
  const next = [0, 0];
  return turns.map((which) => (which === 0 ? first : second)[next[which]!++]!);
}
