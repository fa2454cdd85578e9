/** Chapters that no test sentence needs: they make the book longer. */
import type { Random } from "@llmeff/data";
import type { Language } from "./language.js";

const list = (words: string): string[] => words.split(",").map((word) => word.trim());

/** Titles and the English words that the chapter gives a form for. */
const SUBJECTS: readonly (readonly [string, string, readonly string[]])[] = [
  [
    "Numerals",
    "Numerals stand alone in counting and in prices.",
    list("one, two, three, four, five, six, seven, eight, nine, ten"),
  ],
  [
    "Greetings",
    "Greetings are said once and answered by the same words.",
    list("good day, good night, farewell, welcome, thank you"),
  ],
  [
    "Days",
    "The week has six days, and the first is a day of rest.",
    list("first day, second day, third day, fourth day, fifth day, sixth day"),
  ],
  [
    "Months",
    "Months are counted from the first frost.",
    list("frost month, seed month, bud month, heat month, reaping month, storm month"),
  ],
  ["Winds", "Sailors call each wind by a name of its own.", list("north wind, east wind, south wind, west wind")],
  ["Exclamations", "Exclamations stand outside the clause.", list("alas, hurrah, hush, behold, ouch")],
  ["Weights", "Goods are weighed in units that double.", list("grain, pinch, handful, stone weight, load")],
  [
    "Dances",
    "Every feast has a dance, and every dance a name.",
    list("round dance, rain dance, sword dance, harvest dance"),
  ],
];

export const EXTRA_CHAPTERS = SUBJECTS.length;

/** The `i`-th chapter, with forms built from the stems of the language's own words; they mean nothing elsewhere in the book. */
export function extraChapter(random: Random, language: Language, i: number): string {
  const [title, remark, words] = SUBJECTS[i]!;
  const nouns = Object.values(language.grammar.nouns);
  const forms = words.map((word) => {
    const [first, second] = [random.integer(0, nouns.length), random.integer(0, nouns.length)];
    return `  ${nouns[first]!.c}-${nouns[second]!.c}: ${word}`;
  });
  return `### Appendix: ${title}\n${remark}\n${forms.join("\n")}`;
}
