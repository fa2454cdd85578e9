/** Formats of texts: which frames they use, and what stands before and after. */
import { essay } from "./frames/essay.js";
import { letter } from "./frames/letter.js";
import { narrative } from "./frames/narrative.js";
import { recipe } from "./frames/recipe.js";
import type { Register } from "./frames/register.js";
import { verse } from "./frames/verse.js";

export interface Format {
  readonly register: Register;
  /** Before the opening; short, since name and number must stand within the first 48 characters. */
  readonly lead: string;
  /** A last line, or nothing. */
  readonly end: string;
  /** Stanzas with rhymes instead of paragraphs. */
  readonly stanzas: boolean;
}

const prose = (register: Register, lead: string, end = ""): Format => ({ register, lead, end, stanzas: false });

export const FORMATS = {
  poem: { register: verse, lead: "", end: "", stanzas: true },
  riddle: { register: verse, lead: "Guess: ", end: "What is it that {name} {vd}?", stanzas: true },
  email: prose(letter, "Subject: ", "Sent from {place}, cc {name}"),
  "short story": prose(narrative, ""),
  essay: prose(essay, ""),
  "blog post": prose(essay, "Post: ", "Comments ({num}) | Share"),
  "news item": prose(narrative, "NEWS: ", "({place} press, wire {num})"),
  recipe: prose(recipe, ""),
  "product review": prose(essay, "Review: ", "Rated by {num} buyers in {place}."),
  speech: prose(letter, "Friends! ", "(Applause for {num} seconds.)"),
  "diary entry": prose(narrative, "Dear diary: ", "Good night, {place}."),
  letter: prose(letter, "Dear cousin, ", "Yours, {name}"),
} as const satisfies Record<string, Format>;

export type FormatName = keyof typeof FORMATS;

export const FORMAT_NAMES = Object.keys(FORMATS) as FormatName[];
