/** IDK (Michelangelo, arXiv:2409.12640 §2.3): whether a model says that it does not know. */
import type { Random } from "@llmeff/data";
import { OptionError } from "@llmeff/native/errors";
import { pick, pickSome, streamFor } from "../../random.js";
import type { Sample, SampleMeta } from "../../sample.js";
import { NameStream } from "../../scribe/names.js";
import { proseLine } from "../../scribe/prose.js";
import { type Selection, selectedUnits, TextUnits, unitAt } from "../../tokens/budget.js";
import { gapOf } from "../../tokens/placement.js";
import { type Tokenizer, utf8Bytes } from "../../tokens/tokenizer.js";
import { assembleSample, type SampleOptions } from "../sample-options.js";
import { ATTRIBUTE_KEYS, ATTRIBUTES, type AttributeKey } from "./attributes.js";
import { drawPlot, type Fact, type Plot, writeStory } from "./story.js";

export interface IdkParams {
  /** `letters` (default, as in the paper), generated `prose`, or `stories` about others. */
  filler?: "letters" | "prose" | "stories";
  /** Where the story stands in the filler, 0 (default) first, 1 last. */
  depth?: number;
}

export interface IdkMeta extends SampleMeta {
  answerable: boolean;
  filler: "letters" | "prose" | "stories";
  depth: number;
  facts: Fact[];
  choices: string[];
}

const RESERVE = 64;
const LETTERS_PER_UNIT = 16;
/** In each block of ten samples three are answerable. */
const BLOCK = 10;
const ANSWERABLE_OF_BLOCK = 3;
const LETTERS = ["A", "B", "C", "D"] as const;
export const DONT_KNOW = "I don't know";

/** Which samples have an answer, and where it stands: 30 % exactly, the letters A to C equally often. */
function drawVerdict(seed: number, index: number): { answerable: boolean; letter: number } {
  const block = Math.floor(index / BLOCK);
  const random = streamFor(seed, "idk", block, "verdict");
  const rank = random.permutation(BLOCK).indexOf(index % BLOCK);
  // Each block's three answerable samples take the letters A, B, C in an order of its own.
  const letters = random.permutation(ANSWERABLE_OF_BLOCK);
  return rank < ANSWERABLE_OF_BLOCK
    ? { answerable: true, letter: letters[rank]! }
    : { answerable: false, letter: LETTERS.length - 1 };
}

/**
 * A story, filler, a question with four choices of which the last is always "I don't know": right in 70 % of the samples, where the story
 * says nothing of the attribute asked for but tells it of somebody else. Complexity is 1 if there is an answer, else 0.
 */
export function idk(options: SampleOptions, params: IdkParams = {}): Sample<string, IdkMeta> {
  const { seed, index, tokenizer = utf8Bytes } = options;
  const { filler = "letters", depth = 0 } = params;
  if (!(depth >= 0 && depth <= 1)) {
    throw new OptionError(`[idk] depth must be in [0, 1]; received ${depth}.`);
  }
  const stream = (purpose: string): Random => streamFor(seed, "idk", index, purpose);
  const { answerable, letter } = drawVerdict(seed, index);
  const names = new NameStream(stream("names"));
  const cast = { main: names.next(), other: names.next() };
  const random = stream("story");
  const asked = pick(random, ATTRIBUTE_KEYS);
  const plot = drawPlot(random, asked, answerable);
  const story = writeStory(random, cast, plot);
  const choices = drawChoices(random, asked, plot, answerable ? letter : undefined);
  const units = fillerUnits(filler, stream(`filler/${filler}`), names, tokenizer);
  const question = [
    `Question: What is the ${ATTRIBUTES[asked].name} of ${cast.main}?`,
    "Choices:",
    ...choices.map((choice, i) => `(${LETTERS[i]}) ${choice}`),
    "Answer:",
  ].join("\n");
  return assembleSample<string, Omit<IdkMeta, keyof SampleMeta>>({
    task: "idk",
    options,
    params: { filler, depth },
    complexity: answerable ? 1 : 0,
    units,
    reserve: RESERVE,
    target: LETTERS[letter]!,
    render: (selection) => [{ role: "user", content: pieces(story.text, units, selection, depth, filler, question) }],
    meta: () => ({ answerable, filler, depth, facts: story.facts, choices }),
  }) as Sample<string, IdkMeta>;
}

/** Three values of the attribute, the other entity's among them, and the refusal. */
function drawChoices(random: Random, asked: AttributeKey, plot: Plot, goldAt: number | undefined): string[] {
  const gold = plot.main.get(asked);
  const lure = plot.other.get(asked)!;
  const free = (ATTRIBUTES[asked].values as readonly string[]).filter((value) => value !== gold && value !== lure);
  const wrong = random.shuffle([lure, ...pickSome(random, free, gold === undefined ? 2 : 1)]);
  if (gold !== undefined && goldAt !== undefined) wrong.splice(goldAt, 0, gold);
  return [...wrong, DONT_KNOW];
}

function fillerUnits(filler: IdkMeta["filler"], random: Random, names: NameStream, tokenizer: Tokenizer): TextUnits {
  switch (filler) {
    case "letters":
      return new TextUnits(() => letters(random), tokenizer, " ");
    case "prose":
      return new TextUnits(() => proseLine(random), tokenizer);
    case "stories":
      return new TextUnits(() => otherStory(random, names), tokenizer);
    default:
      throw new OptionError(
        `[idk] filler must be "letters", "prose" or "stories"; received ${JSON.stringify(filler)}.`,
      );
  }
}

function letters(random: Random): string {
  return Array.from({ length: LETTERS_PER_UNIT }, () => String.fromCharCode(65 + random.integer(0, 26))).join(" ");
}

function otherStory(random: Random, names: NameStream): string {
  const plot = drawPlot(random, pick(random, ATTRIBUTE_KEYS), random.integer(0, 2) === 0);
  return writeStory(random, { main: names.next(), other: names.next() }, plot).text;
}

/** Filler, story, filler on lines, and the question, in pieces; a run of letters ends with a full stop. */
function* pieces(
  story: string,
  units: TextUnits,
  selection: Selection,
  depth: number,
  filler: IdkMeta["filler"],
  question: string,
): Generator<string> {
  const n = selectedUnits(selection);
  const gap = gapOf(depth, n);
  const [separator, end] = filler === "letters" ? [" ", "."] : ["\n", ""];
  for (let k = 0; k < gap; k++) yield units.text(unitAt(selection, k))! + (k === gap - 1 ? `${end}\n` : separator);
  yield story;
  for (let k = gap; k < n; k++) yield (k === gap ? "\n" : separator) + units.text(unitAt(selection, k))!;
  yield `${n > gap ? end : ""}\n\n${question}`;
}
