/** Pieces of writing from templates: one for a key of format, topic and style, 240 to 2048 bytes. */
import type { Random } from "@llmeff/data";
import { GenerationError } from "../errors.js";
import { chance, pick } from "../random.js";
import { FORMATS, type FormatName } from "./formats.js";
import { capitalise, compileFrame, compileFrames, type Frame, type FrameContext } from "./frame.js";
import { restyle, STYLES, type Style, type StyleName } from "./styles.js";
import { RHYMES } from "./vocabulary/rhymes.js";

export interface TextKey {
  format: FormatName;
  /** A plural noun phrase. */
  topic: string;
  style: StyleName;
}

export const LEAST_BYTES = 240;
export const MOST_BYTES = 2048;
const LEAST_SLOTS = 2;
const MOST_SLOTS = 8;
const ATTEMPTS = 100;

interface Skeleton {
  openings: Frame[];
  bodies: Frame[];
  closings: Frame[];
  end: Frame;
}

const skeletons = new Map<string, Skeleton>();

function skeletonOf(format: FormatName, style: StyleName): Skeleton {
  const key = `${format}/${style}`;
  const known = skeletons.get(key);
  if (known !== undefined) return known;
  const { register, end } = FORMATS[format];
  const literal = restyle(STYLES[style]);
  const made = {
    openings: compileFrames(register.openings, literal),
    bodies: compileFrames(register.bodies, literal),
    closings: compileFrames(register.closings, literal),
    end: compileFrame(end),
  };
  skeletons.set(key, made);
  return made;
}

/** Length drawn log-uniformly; in bytes, so that a text does not depend on the tokenizer. */
function drawLength(random: Random): number {
  return Math.floor(LEAST_BYTES * (MOST_BYTES / LEAST_BYTES) ** random.uniform());
}

/** A text of the key. All of it is ASCII, so its length in characters is its length in bytes. */
export function writeText(random: Random, key: TextKey): string {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const text = compose(random, key, drawLength(random));
    if (text.length >= LEAST_BYTES && text.length <= MOST_BYTES && mentions(text, key.topic) >= 2) return text;
  }
  throw new GenerationError(`[writeText] no ${key.format} about ${key.topic} has ${LEAST_BYTES}..${MOST_BYTES} bytes.`);
}

function mentions(text: string, topic: string): number {
  return text.split(topic).length - 1;
}

function compose(random: Random, key: TextKey, length: number): string {
  const { openings, bodies, closings, end } = skeletonOf(key.format, key.style);
  const { lead, stanzas } = FORMATS[key.format];
  const style: Style = STYLES[key.style];
  const context: FrameContext = { random, topic: key.topic };
  const opening = lead + pick(random, openings).fill(context);
  const closing = [remark(random, style.closers), pick(random, closings).fill(context)].filter(Boolean).join(" ");
  const last = end.fill(context);
  const frame = [opening, remark(random, style.openers)].filter(Boolean).join(stanzas ? "\n" : " ");
  const around = frame.length + closing.length + last.length + 3;
  const body = stanzas
    ? writeStanzas(context, bodies, length - around)
    : writeParagraphs(context, bodies, length - around);
  return [frame, ...body, closing, last].filter(Boolean).join("\n");
}

const remark = (random: Random, remarks: readonly string[]): string =>
  remarks.length === 0 ? "" : pick(random, remarks);

/** Two to eight paragraphs of as many sentences as fill `length` bytes; at least two sentences. */
function writeParagraphs(context: FrameContext, frames: readonly Frame[], length: number): string[] {
  const { random } = context;
  const order = random.shuffle([...frames]);
  const sentences: string[] = [];
  for (let bytes = 0; ; ) {
    const sentence = order[sentences.length % order.length]!.fill(context);
    bytes += sentence.length + 1;
    if (bytes > length && sentences.length >= LEAST_SLOTS) break;
    sentences.push(sentence);
  }
  const slots = random.integer(LEAST_SLOTS, Math.min(MOST_SLOTS, sentences.length) + 1);
  return Array.from({ length: slots }, (_, i) =>
    sentences
      .slice(Math.floor((i * sentences.length) / slots), Math.floor(((i + 1) * sentences.length) / slots))
      .join(" "),
  );
}

/** Stanzas of four lines, rhymed ABAB or AABB; at least one. */
function writeStanzas(context: FrameContext, frames: readonly Frame[], length: number): string[] {
  const { random } = context;
  const alternate = chance(random, 0.5);
  const stanzas: string[] = [];
  for (let bytes = 0; ; ) {
    const stanza = writeStanza(context, frames, alternate);
    bytes += stanza.length + 1;
    if (bytes > length && stanzas.length >= 1) return stanzas;
    stanzas.push(stanza);
  }
}

function writeStanza(context: FrameContext, frames: readonly Frame[], alternate: boolean): string {
  const { random } = context;
  const first = pick(random, RHYMES);
  let second = pick(random, RHYMES);
  while (second === first) second = pick(random, RHYMES);
  const scheme = alternate ? [first, second, first, second] : [first, first, second, second];
  const order = random.shuffle([...frames]);
  const used = new Set<string>();
  const lines = scheme.map((rhymes, i) => {
    const left = rhymes.filter((word) => !used.has(word));
    const line = order[i]!.fill({ ...context, rhymes: left });
    // The rhyme is the last word, before the frame's comma.
    used.add(line.slice(line.lastIndexOf(" ") + 1, -1));
    return capitalise(line);
  });
  lines[3] = `${lines[3]!.slice(0, -1)}.`;
  return lines.join("\n");
}
