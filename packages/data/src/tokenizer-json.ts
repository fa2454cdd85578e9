import { byteCharacters, byteLevelTokenizerJson } from "./byte-level.js";
import type { Tokenizer } from "./tokenizer.js";

/**
 * The content of a tokenizer.json that tokenizes alike: of a Hugging Face tokenizer its own, of the byte tokenizer one without merges.
 *
 * @returns undefined for a character tokenizer, which refuses characters that it doesn't know, as no tokenizer.json can
 */
export function tokenizerJson(tokenizer: Tokenizer): object | undefined {
  const spec = tokenizer.toJSON();
  if (spec.type === "hugging-face") return spec.tokenizer;
  if (spec.type === "character") return undefined;
  return byteLevelTokenizerJson({ pieces: byteCharacters, merges: [], splitWords: false });
}
