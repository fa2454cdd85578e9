/** Stand-alone counts of units of filler. */
import type { Tokenizer } from "./tokenizer.js";

/** Units that are always counted. */
const COUNTED = 512;

/**
 * Counts units one after another. Of a tokenizer that says it is slow only the first 512 are counted; the tokens of later ones are taken from
 * their length, since the fit of a budget counts whole prompts and needs no more than a guess of a unit.
 */
export class UnitCounter {
  readonly #tokenizer: Tokenizer;
  #units = 0;
  #tokens = 0;
  #characters = 0;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  count(text: string): number {
    if (this.#tokenizer.slow === true && this.#units >= COUNTED) {
      return Math.ceil((text.length * this.#tokens) / this.#characters);
    }
    const tokens = this.#tokenizer.count(text);
    this.#units++;
    this.#tokens += tokens;
    this.#characters += text.length;
    return tokens;
  }
}
