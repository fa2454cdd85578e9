/** Texts at which another text is to end, looked for as it comes piece by piece. */
import { OptionError } from "@llmeff/native/errors";

interface Automaton {
  stop: string;
  /** Of each beginning of `stop`, the length of its longest proper end that is a beginning too (Knuth, Morris and Pratt 1977). */
  borders: Int32Array;
  /** Characters of `stop` that the text ends with. */
  matched: number;
}

function automatonOf(stop: string): Automaton {
  const borders = new Int32Array(stop.length);
  for (let i = 1, k = 0; i < stop.length; i++) {
    while (k > 0 && stop[i] !== stop[k]) k = borders[k - 1]!;
    if (stop[i] === stop[k]) k++;
    borders[i] = k;
  }
  return { stop, borders, matched: 0 };
}

/** @returns whether the character completes the text looked for */
function advance(automaton: Automaton, character: string): boolean {
  const { stop, borders } = automaton;
  let k = automaton.matched;
  while (k > 0 && stop[k] !== character) k = borders[k - 1]!;
  if (stop[k] === character) k++;
  automaton.matched = k;
  return k === stop.length;
}

/**
 * Ends a text before the first of several stop strings, however it is cut into pieces: what may be the beginning of one is held back until it
 * is known. The first is the one that ends first; of two that end together, the longer. The work for a character doesn't depend on the length of
 * the text.
 *
 * @example
 * const stops = new StopStrings(["\n\nUser:"]);
 * stops.push("Yes.\n"); // "Yes."
 * stops.push("\nIt"); // "\n\nIt"
 * stops.push("\n\nUser: "); // ""
 * stops.found; // "\n\nUser:"
 */
export class StopStrings {
  readonly #automata: readonly Automaton[];
  #held = "";
  #found: string | undefined;

  /** @throws {OptionError} for one that is empty or no string */
  constructor(stops: readonly string[]) {
    for (const stop of stops) {
      if (typeof stop === "string" && stop !== "") continue;
      throw new OptionError(
        `[StopStrings] a stop string must be a text that isn't empty; received ${JSON.stringify(stop)}.`,
      );
    }
    this.#automata = [...new Set(stops)].map(automatonOf);
  }

  /** The stop string that has come; undefined until then. */
  get found(): string | undefined {
    return this.#found;
  }

  /** What of the text, this piece added, is sure to be before any stop string; nothing after one has been found. */
  push(piece: string): string {
    if (this.#found !== undefined) return "";
    const text = this.#held + piece;
    for (let i = this.#held.length; i < text.length; i++) {
      let longest: string | undefined;
      for (const automaton of this.#automata) {
        if (advance(automaton, text[i]!) && automaton.stop.length > (longest?.length ?? 0)) longest = automaton.stop;
      }
      if (longest === undefined) continue;
      this.#found = longest;
      this.#held = "";
      return text.slice(0, i + 1 - longest.length);
    }
    const length = this.#automata.reduce((most, { matched }) => Math.max(most, matched), 0);
    this.#held = text.slice(text.length - length);
    return text.slice(0, text.length - length);
  }

  /** What was held back, when no piece follows. */
  end(): string {
    const rest = this.#held;
    this.#held = "";
    for (const automaton of this.#automata) automaton.matched = 0;
    return rest;
  }
}
