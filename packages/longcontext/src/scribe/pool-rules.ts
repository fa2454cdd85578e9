/** What a text must be to be taken into a pool. */
import { type Tokenizer, utf8Length } from "../tokens/tokenizer.js";
import { DistinctTexts } from "./distinct-texts.js";
import type { TextKey } from "./text.js";
import { keyName } from "./text-pool.js";

export const LEAST_TOKENS = 40;
export const MOST_TOKENS = 512;
const BYTES_PER_TOKEN = 4;
const REFUSAL =
  /\b(?:i(?:'m| am) (?:sorry|unable|not able)|i can(?:no|')t (?:help|write|assist|provide|fulfil)|as an ai\b|language model)/i;

/** A blank line would end a reply where a chat is told as one text. */
export function normalise(text: string): string {
  return text
    .trim()
    .replace(/[ \t]+$/gm, "")
    .replace(/\n{2,}/g, "\n");
}

/** 40 to 512 tokens, no refusal, and distinct from all texts taken before. */
export class PoolRules {
  readonly #texts = new DistinctTexts();
  readonly #count: (text: string) => number;

  /** @param tokenizer - default: four bytes a token */
  constructor(tokenizer: Tokenizer | undefined) {
    this.#count = tokenizer?.count ?? ((text) => Math.ceil(utf8Length(text) / BYTES_PER_TOKEN));
  }

  accept(key: TextKey, text: string): boolean {
    const tokens = this.#count(text);
    if (tokens < LEAST_TOKENS || tokens > MOST_TOKENS || REFUSAL.test(text)) return false;
    return text === normalise(text) && this.#texts.accept(keyName(key), text);
  }
}
