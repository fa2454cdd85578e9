/** Which texts a pool is to have. */
import { OptionError } from "@llmeff/native/errors";
import { requireInteger } from "../require-integer.js";
import { FORMAT_NAMES, type FormatName } from "./formats.js";
import { STYLE_NAMES, type StyleName } from "./styles.js";
import type { TextKey } from "./text.js";
import { TOPICS } from "./vocabulary/topics.js";

export interface TextKeysOptions {
  /** How many of the vocabulary's topics; default 16. */
  topics?: number;
  /** Default poem, letter, essay and recipe. */
  formats?: readonly string[];
  /** Default plain, the one style of chats whose keys are format and topic. */
  styles?: readonly string[];
}

/**
 * Every topic in every format and style, topic by topic: each topic in turn is whole before the next begins.
 *
 * @throws {OptionError} for an unknown format or style, naming those that there are
 */
export function textKeys(options: TextKeysOptions = {}): TextKey[] {
  const { topics = 16, formats = ["poem", "letter", "essay", "recipe"], styles = ["plain"] } = options;
  requireInteger("textKeys", "topics", topics, 1, TOPICS.length);
  const known = {
    formats: requireKnown<FormatName>("format", formats, FORMAT_NAMES),
    styles: requireKnown<StyleName>("style", styles, STYLE_NAMES),
  };
  return TOPICS.slice(0, topics).flatMap((topic) =>
    known.formats.flatMap((format) => known.styles.map((style) => ({ format, topic, style }))),
  );
}

function requireKnown<Name extends string>(what: string, names: readonly string[], all: readonly Name[]): Name[] {
  return [...new Set(names)].map((name) => {
    const found = all.find((other) => other === name);
    if (found === undefined) {
      throw new OptionError(`[textKeys] there is no ${what} ${JSON.stringify(name)}. There are: ${all.join(", ")}.`);
    }
    return found;
  });
}
