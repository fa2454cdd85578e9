/** One token a character (Unicode code point) of a given corpus. */
import { FormatError, OptionError } from "@llmeff/native/errors";
import { requireIds, type Tokenizer } from "./tokenizer.js";

/**
 * A tokenizer of the characters that occur in `corpus`; ids follow code point order, so the same set of characters gives the same ids.
 *
 * @throws {OptionError} if the corpus is empty
 *
 * @example
 * characterTokenizer("banana").encode("nab"); // Int32Array [2, 0, 1]
 */
export function characterTokenizer(corpus: string | Iterable<string>): Tokenizer {
  const found = new Set<string>();
  for (const text of typeof corpus === "string" ? [corpus] : corpus) {
    for (const character of text) found.add(character);
  }
  if (found.size === 0) {
    throw new OptionError("[characterTokenizer] the corpus is empty; at least one character is needed.");
  }
  return characterTokenizerOf([...found].sort((a, b) => a.codePointAt(0)! - b.codePointAt(0)!).join(""));
}

/**
 * A tokenizer of exactly these characters; the i-th has id i.
 *
 * @throws {FormatError} if a character occurs twice or there is none
 */
export function characterTokenizerOf(characters: string): Tokenizer {
  const alphabet = typeof characters === "string" ? [...characters] : [];
  const idByCodePoint = new Map(alphabet.map((character, id) => [character.codePointAt(0)!, id]));
  if (alphabet.length === 0 || idByCodePoint.size !== alphabet.length) {
    throw new FormatError(
      `[characterTokenizerOf] characters must be a string of distinct characters; received ${JSON.stringify(characters)}.`,
    );
  }
  return {
    vocabSize: alphabet.length,
    encode: (text) => encodeCharacters(text, idByCodePoint),
    decode(ids) {
      requireIds("characterTokenizer.decode", ids, alphabet.length);
      return Array.from(ids, (id) => alphabet[id]).join("");
    },
    idOf: (token) => ([...token].length === 1 ? idByCodePoint.get(token.codePointAt(0)!) : undefined),
    toJSON: () => ({ type: "character", characters: alphabet.join("") }),
  };
}

function encodeCharacters(text: string, idByCodePoint: ReadonlyMap<number, number>): Int32Array {
  const ids = new Int32Array(text.length);
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    const codePoint = text.codePointAt(i)!;
    const id = idByCodePoint.get(codePoint);
    if (id === undefined) throw unknownCharacter(codePoint, i, idByCodePoint.size);
    ids[count++] = id;
    // Characters beyond U+FFFF take two code units.
    if (codePoint > 0xffff) i++;
  }
  return count === ids.length ? ids : ids.slice(0, count);
}

function unknownCharacter(codePoint: number, index: number, vocabSize: number): OptionError {
  const name = `U+${codePoint.toString(16).toUpperCase().padStart(4, "0")}`;
  return new OptionError(
    `[characterTokenizer.encode] character ${JSON.stringify(String.fromCodePoint(codePoint))} (${name}) at index ${index} is not among ` +
      `the ${vocabSize} characters of the vocabulary. Build the tokenizer from a corpus that has it, or use byteTokenizer().`,
  );
}
