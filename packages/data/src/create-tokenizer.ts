/** From the plain data that a checkpoint keeps back to a tokenizer. */
import { FormatError } from "@llmeff/native/errors";
import { byteTokenizer } from "./byte-tokenizer.js";
import { characterTokenizerOf } from "./character-tokenizer.js";
import { huggingFaceTokenizer } from "./hugging-face-tokenizer.js";
import type { Tokenizer, TokenizerSpec } from "./tokenizer.js";

/**
 * The tokenizer that `toJSON()` described.
 *
 * @example
 * const same = createTokenizer(JSON.parse(JSON.stringify(tokenizer)));
 */
export function createTokenizer(spec: TokenizerSpec): Tokenizer {
  switch (spec?.type) {
    case "byte":
      return byteTokenizer();
    case "character":
      return characterTokenizerOf(spec.characters);
    case "hugging-face":
      return huggingFaceTokenizer(spec.tokenizer);
    default:
      throw new FormatError(
        `[createTokenizer] type must be "byte", "character" or "hugging-face"; received ${JSON.stringify((spec as { type?: unknown } | undefined)?.type)}.`,
      );
  }
}
