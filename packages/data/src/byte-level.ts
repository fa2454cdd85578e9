/** Byte-level byte-pair encoding as a tokenizer.json: every byte is a character of its own, so that any text has tokens (GPT-2). */

/** Characters that stand for the 256 bytes: those that print stand for themselves, the others for code points from 256 on (models.md §11). */
export const byteCharacters: readonly string[] = (() => {
  const prints = (byte: number) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(prints(byte) ? byte : next++));
})();

/** GPT-2's words. Spaces are Unicode's: JavaScript's `\s` has U+FEFF, and lacks U+0085. */
export const gpt2Words =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

export interface ByteLevelParts {
  /** The bytes of each token, by its id: as characters of `byteCharacters`. */
  pieces: readonly string[];
  /** Pairs of pieces in the order in which they were learnt. */
  merges: readonly (readonly [string, string])[];
  /** Tokens that no text is made of, with the ids after those of the pieces. */
  specialTokens?: readonly string[];
  /** Splits texts into words by GPT-2's rule, within which alone pieces are joined. */
  splitWords: boolean;
}

/** The content of a tokenizer.json. */
export function byteLevelTokenizerJson({ pieces, merges, specialTokens = [], splitWords }: ByteLevelParts): object {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: splitWords };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, i) => ({
      id: pieces.length + i,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      merges,
    },
  };
}
