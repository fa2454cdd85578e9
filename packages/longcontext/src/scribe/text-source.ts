/** Where the replies of a chat come from: templates, which never end, or texts that a model wrote. */
import type { Random } from "@llmeff/data";
import { pick } from "../random.js";
import { FORMAT_NAMES } from "./formats.js";
import { STYLE_NAMES } from "./styles.js";
import { type TextKey, writeText } from "./text.js";
import { TOPICS } from "./vocabulary/topics.js";

/** Which part of a key a near-miss does not share. */
export type KeyPart = keyof TextKey;

/** 2: format and topic, all texts are plain; 3: style too. */
export type KeyDepth = 2 | 3;

/** The texts of one chat; none is given twice. */
export interface TextSession {
  readonly topics: readonly string[];
  /** A key about the topic with at least so many texts, undefined if there is none. */
  drawKey(random: Random, topic: string, least: number): TextKey | undefined;
  /** A key with texts that shares all parts but one; if that is the topic, another of `topics`. */
  nearMiss(random: Random, part: KeyPart, key: TextKey, topics: readonly string[]): TextKey | undefined;
  /** Another text of the key, undefined if there is none. */
  write(random: Random, key: TextKey): string | undefined;
}

export interface TextSource {
  /** A part of a sample's identity. */
  readonly id: string;
  open(keyDepth: KeyDepth): TextSession;
}

const other = <Item>(random: Random, items: readonly Item[], item: Item): Item =>
  pick(
    random,
    items.filter((entry) => entry !== item),
  );

/** Texts from the templates of `writeText`. */
export const templateTexts: TextSource = {
  id: "templates",
  open: (keyDepth) => ({
    topics: TOPICS,
    drawKey(random, topic) {
      const style = keyDepth === 2 ? "plain" : pick(random, STYLE_NAMES);
      return { format: pick(random, FORMAT_NAMES), topic, style };
    },
    nearMiss(random, part, key, topics) {
      if (part === "topic") return { ...key, topic: pick(random, topics) };
      if (part === "format") return { ...key, format: other(random, FORMAT_NAMES, key.format) };
      return { ...key, style: other(random, STYLE_NAMES, key.style) };
    },
    write: writeText,
  }),
};
