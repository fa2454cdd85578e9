/** Keys such as `crimson-lantern`: English words joined by hyphens, all different and found nowhere else in a prompt. */
import type { Random } from "@llmeff/data";
import { Permutation } from "./permutation.js";
import { ADJECTIVES } from "./vocabulary/modifiers.js";
import { NOUNS } from "./vocabulary/nouns.js";

const PAIRS = ADJECTIVES.length * NOUNS.length;
const TRIPLES = PAIRS * ADJECTIVES.length;

/** First every adjective-noun (over 10^5), then adjective-adjective-noun (over 3 · 10^7), in an order of the stream's own. */
export class WordKeys {
  readonly #pairs: Permutation;
  readonly #triples: Permutation;

  constructor(random: Random) {
    this.#pairs = new Permutation(PAIRS, random);
    this.#triples = new Permutation(TRIPLES, random);
  }

  at(i: number): string {
    return i < PAIRS ? pair(this.#pairs.at(i)) : triple(this.#triples.at(i - PAIRS));
  }
}

function pair(index: number): string {
  return `${ADJECTIVES[Math.floor(index / NOUNS.length)]!}-${NOUNS[index % NOUNS.length]!.sg}`;
}

function triple(index: number): string {
  return `${ADJECTIVES[Math.floor(index / PAIRS)]!}-${pair(index % PAIRS)}`;
}
