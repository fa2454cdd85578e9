/** Filler for tasks whose relevant items are lines: generated prose, a few repeated sentences, or a text of the user's. */
import type { Random } from "@llmeff/data";
import { OptionError } from "@llmeff/native/errors";
import { noiseLine, proseLine } from "../scribe/prose.js";
import { TextUnits } from "../tokens/budget.js";
import type { Tokenizer } from "../tokens/tokenizer.js";

/** `prose` and `noise` never end; `{ name, text }` is cut into sentences, and must be long enough. */
export type Haystack = "prose" | "noise" | { readonly name: string; readonly text: string };

/** What a sample says about its haystack: a text of the user's by its name alone. */
export function haystackName(haystack: Haystack): string {
  return typeof haystack === "string" ? haystack : haystack.name;
}

/** Sentences of a text, each on one line; a paragraph's end ends a sentence too. */
export function splitSentences(text: string): string[] {
  return text
    .split(/\n\s*\n|(?<=[.!?]["'”’)]?)\s+(?=["'“‘(]?\p{Lu})/u)
    .map((sentence) => sentence.replace(/\s+/g, " ").trim())
    .filter((sentence) => sentence !== "");
}

export function haystackUnits(where: string, haystack: Haystack, random: Random, tokenizer: Tokenizer): TextUnits {
  if (haystack === "prose") return new TextUnits(() => proseLine(random), tokenizer);
  if (haystack === "noise") return new TextUnits(noiseLine, tokenizer);
  if (typeof haystack !== "object" || typeof haystack.text !== "string" || typeof haystack.name !== "string") {
    throw new OptionError(
      `[${where}] haystack must be "prose", "noise" or { name, text }; received ${JSON.stringify(haystack)}.`,
    );
  }
  const sentences = splitSentences(haystack.text);
  return new TextUnits((i) => sentences[i], tokenizer);
}
