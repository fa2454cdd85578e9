/** Filler text for haystacks. */
import type { Random } from "@llmeff/data";
import { pick } from "../random.js";
import { compileFrames, type FrameContext } from "./frame.js";
import { essay } from "./frames/essay.js";
import { letter } from "./frames/letter.js";
import { narrative } from "./frames/narrative.js";
import { TOPICS } from "./vocabulary/topics.js";

const frames = [narrative, letter, essay].flatMap(({ bodies, closings }) => [
  ...compileFrames(bodies),
  ...compileFrames(closings),
]);

/** One to three sentences of generated prose, on a line. */
export function proseLine(random: Random): string {
  const context: FrameContext = { random, topic: pick(random, TOPICS) };
  const sentences = Array.from({ length: random.integer(1, 4) }, () => pick(random, frames).fill(context));
  return sentences.join(" ");
}

const NOISE = [
  "The kettle is warm.",
  "The road is long.",
  "The bread is fresh.",
  "Up we go and down again.",
  "The window is open.",
  "The river is wide.",
  "Here we are once more.",
  "The lamp is lit.",
] as const;

/** The same few sentences for ever. */
export function noiseLine(i: number): string {
  return NOISE[i % NOISE.length]!;
}
