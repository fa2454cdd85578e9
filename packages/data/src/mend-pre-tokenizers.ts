/**
 * Pre-tokenizers that the library has otherwise than the reference implementation: `Split` and `Punctuation` with what becomes of matches, `Digits` of
 * every script, words and spaces as Unicode has them (also between the words of `ByteLevel`), `Metaspace` that splits.
 */
import { FormatError } from "@llmeff/native/errors";
import { gpt2Words } from "./byte-level.js";
import { type SplitBehavior, splitBehaviors, splitText } from "./split-text.js";

/** A part of tokenizer.json. */
export interface PreTokenizerJson {
  type: string;
  pretokenizers?: PreTokenizerJson[];
  behavior?: string;
  invert?: boolean;
  individual_digits?: boolean;
  replacement?: string;
  prepend_scheme?: string;
  add_prefix_space?: boolean;
  split?: boolean;
}

/** What we use of the library's part. */
export interface LibraryPreTokenizer {
  tokenizers?: LibraryPreTokenizer[];
  /** Of `Split` and `ByteLevel`. */
  pattern?: RegExp | null;
  pre_tokenize_text(text: string, options?: { section_index?: number }): string[];
}

const punctuation = /[!-/:-@[-`{-~\p{P}]/gu;
const numerals = /\p{N}/gu;
const wordsAndSigns =
  /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}\p{White_Space}]+/gu;
const notSpaces = /\P{White_Space}+/gu;

function behaviorOf({ type, behavior }: PreTokenizerJson): SplitBehavior {
  const given = behavior ?? "Isolated";
  const found = splitBehaviors.find((known) => known.toLowerCase() === given.toLowerCase());
  if (found !== undefined) return found;
  throw new FormatError(
    `[huggingFaceTokenizer] the behavior of ${type} must be one of ${splitBehaviors.join(", ")}; received ${JSON.stringify(behavior)}.`,
  );
}

function metaspace(json: PreTokenizerJson): LibraryPreTokenizer["pre_tokenize_text"] {
  const { replacement = "▁", split = true } = json;
  const scheme = json.prepend_scheme ?? (json.add_prefix_space === false ? "never" : "always");
  const escaped = replacement.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
  const pattern = new RegExp(escaped, "gu");
  return (text, { section_index } = {}) => {
    const replaced = text.replaceAll(" ", replacement);
    const prepends = scheme === "always" || (scheme === "first" && section_index === 0);
    const whole = prepends && !replaced.startsWith(replacement) ? replacement + replaced : replaced;
    return split ? splitText(whole, pattern, "MergedWithNext") : [whole];
  };
}

/** The function that a part ought to have; undefined where the library's own is right. */
function mended(
  json: PreTokenizerJson,
  part: LibraryPreTokenizer,
): LibraryPreTokenizer["pre_tokenize_text"] | undefined {
  switch (json.type) {
    case "Split": {
      const { pattern } = part;
      if (!pattern)
        throw new FormatError("[huggingFaceTokenizer] the pattern of Split must be { Regex } or { String }.");
      const [behavior, invert] = [behaviorOf(json), json.invert ?? false];
      return (text) => splitText(text, pattern, behavior, { invert });
    }
    case "Punctuation": {
      const behavior = behaviorOf(json);
      return (text) => splitText(text, punctuation, behavior);
    }
    case "Digits":
      return (text) => splitText(text, numerals, json.individual_digits ? "Isolated" : "Contiguous");
    case "Whitespace":
      return (text) => text.match(wordsAndSigns) ?? [];
    case "WhitespaceSplit":
      return (text) => text.match(notSpaces) ?? [];
    case "Metaspace":
      return metaspace(json);
    default:
      return undefined;
  }
}

/** Gives the library's parts the functions of the reference. @throws {FormatError} for a behavior or pattern that there isn't */
export function mendPreTokenizers(json: PreTokenizerJson, part: LibraryPreTokenizer): void {
  json.pretokenizers?.forEach((inner, i) => {
    const below = part.tokenizers?.[i];
    if (below !== undefined) mendPreTokenizers(inner, below);
  });
  if (json.type === "ByteLevel") part.pattern = gpt2Words;
  const text = mended(json, part);
  if (text !== undefined) part.pre_tokenize_text = text;
}
