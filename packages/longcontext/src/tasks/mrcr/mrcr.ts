/** MRCR, multi-round co-reference resolution (Michelangelo, arXiv:2409.12640 §2.2): copy the i-th of several like replies from a long chat. */

import { OptionError } from "@llmeff/native/errors";
import { GenerationError } from "../../errors.js";
import { streamFor } from "../../random.js";
import { requireInteger } from "../../require-integer.js";
import type { Sample, SampleMeta } from "../../sample.js";
import type { TextKey } from "../../scribe/text.js";
import { type TextSource, templateTexts } from "../../scribe/text-source.js";
import { type Draft, type Selection, selectedUnits, type UnitStream, unitAt } from "../../tokens/budget.js";
import { interleaved, type Placement, positionsFor } from "../../tokens/placement.js";
import { type Tokenizer, utf8Bytes } from "../../tokens/tokenizer.js";
import { UnitCounter } from "../../tokens/unit-counter.js";
import { assembleSample, type SampleOptions } from "../sample-options.js";
import { longestOf, withQuestion } from "../shared-prompt.js";
import { fewShotMessage } from "./few-shot.js";
import { finalRequest, flatTurn, request } from "./requests.js";
import { Transcript, type Turn } from "./transcript.js";

export interface MrcrParams {
  /** Replies to the key asked about: the complexity. Default 2. */
  needles?: number;
  /** 2 (default): format and topic; 3: also style. */
  keyDepth?: 2 | 3;
  /** Length of the random string before the copy; default 12. */
  hashLength?: number;
  /** Samples that share one transcript, so that a prefix cache serves them; default 1. Samples `q k … q k + q - 1` belong together. */
  queriesPerTranscript?: number;
  /** `chat` (default): one message a turn; `flat`: the chat as one text. */
  layout?: "chat" | "flat";
  /** Puts a solved example before the chat; default false. */
  fewShot?: boolean;
  placement?: Placement;
  /** Default: templates; or texts that a model wrote (`readTextPool`). */
  texts?: TextSource;
}

export interface MrcrMeta extends SampleMeta {
  key: TextKey;
  /** Which reply is asked for, from 1. */
  ordinal: number;
  hash: string;
  needles: number;
  keyDepth: 2 | 3;
  layout: "chat" | "flat";
  fewShot: boolean;
  /** Samples of one transcript share it. */
  transcript: number;
  /** Depth of the replies to the key in percent of the turns' tokens, in order. */
  depths: number[];
}

const HASH_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const MOST_NEEDLES = 50;
const MOST_QUERIES = 50;
const LEAST_RESERVE = 1024;
const RESERVE_MARGIN = 64;

/**
 * A chat in which some requests were made several times; the last message asks for an exact copy of one of the replies, after a random
 * string. Target: that string and the reply.
 */
export function mrcr(options: SampleOptions, params: MrcrParams = {}): Sample<string, MrcrMeta> {
  const { seed, index, tokenizer = utf8Bytes } = options;
  const { needles = 2, keyDepth = 2, hashLength = 12, queriesPerTranscript = 1, layout = "chat" } = params;
  const { fewShot = false, placement = "uniform", texts = templateTexts } = params;
  requireInteger("mrcr", "needles", needles, 1, MOST_NEEDLES);
  requireInteger("mrcr", "keyDepth", keyDepth, 2, 3);
  requireInteger("mrcr", "hashLength", hashLength, 6, 64);
  requireInteger("mrcr", "queriesPerTranscript", queriesPerTranscript, 1, MOST_QUERIES);
  if (layout !== "chat" && layout !== "flat") {
    throw new OptionError(`[mrcr] layout must be "chat" or "flat"; received ${JSON.stringify(layout)}.`);
  }
  const number = Math.floor(index / queriesPerTranscript);
  const transcript = new Transcript(seed, number, { needles, keyDepth, queries: queriesPerTranscript, texts });
  const questions = transcript.keys.map((key, query) => {
    const random = streamFor(seed, "mrcr", number * queriesPerTranscript + query, "question");
    const ordinal = random.integer(1, needles + 1);
    const hash = Array.from({ length: hashLength }, () => HASH_CHARACTERS[random.integer(0, 62)]).join("");
    return { key, ordinal, hash, line: finalRequest(hash, ordinal, key) };
  });
  const query = index % queriesPerTranscript;
  const asked = questions[query]!;
  const chat = new Chat(
    transcript,
    positionsFor("mrcr", placement, transcript.items.length, streamFor(seed, "mrcr", number, "placement")),
    tokenizer,
    layout,
  );
  const longest = longestOf(
    questions.map(({ line }) => line),
    tokenizer,
  );
  const intro = fewShot ? [fewShotMessage(seed, number, hashLength)] : [];
  const replyTokens = transcript.keys.flatMap((_, q) => transcript.replies(q)).map((reply) => tokenizer.count(reply));
  const shared = { needles, keyDepth, layout, fewShot, transcript: number };
  const fitted = assembleSample<string, Omit<MrcrMeta, keyof SampleMeta>>({
    task: "mrcr",
    options,
    params: { ...shared, hashLength, queriesPerTranscript, placement, texts: texts.id },
    complexity: needles,
    units: chat,
    reserve: Math.max(LEAST_RESERVE, Math.max(...replyTokens) + RESERVE_MARGIN),
    target: asked.hash + transcript.replies(query)[asked.ordinal - 1]!,
    render: (selection) => [...intro, ...chat.drafts(selection, longest)],
    meta: ({ selection }) => ({
      key: asked.key,
      ordinal: asked.ordinal,
      hash: asked.hash,
      ...shared,
      depths: chat.depths(selection, transcript.replies(query)),
    }),
  }) as Sample<string, MrcrMeta>;
  const sample = withQuestion(fitted, longest, asked.line, options);
  requireFreshHash(sample);
  return sample;
}

/** The random string must stand in the request alone, or a reply that copies another place would pass for right. */
function requireFreshHash({ messages, meta }: Sample<string, MrcrMeta>): void {
  const found = messages.reduce((sum, { content }) => sum + content.split(meta.hash).length - 1, 0);
  if (found !== 1)
    throw new GenerationError(`[mrcr] the random string ${meta.hash} occurs in the chat; take another seed.`);
}

/** Turns of filler as units, and all turns as messages. */
class Chat implements UnitStream {
  readonly #transcript: Transcript;
  readonly #positions: readonly number[];
  readonly #counter: UnitCounter;
  readonly #layout: "chat" | "flat";
  readonly #itemTokens: number[];
  readonly #turns: Turn[] = [];
  readonly #tokens: number[] = [];

  constructor(transcript: Transcript, positions: readonly number[], tokenizer: Tokenizer, layout: "chat" | "flat") {
    this.#transcript = transcript;
    this.#positions = positions;
    this.#counter = new UnitCounter(tokenizer);
    this.#layout = layout;
    this.#itemTokens = transcript.items.map((turn) => this.#tokensOfTurn(turn));
  }

  #turn(i: number): Turn | undefined {
    while (this.#turns.length <= i) {
      const turn = this.#transcript.nextFiller();
      if (turn === undefined) return undefined;
      this.#turns.push(turn);
      this.#tokens.push(this.#tokensOfTurn(turn));
    }
    return this.#turns[i];
  }

  #tokensOfTurn(turn: Turn): number {
    const text = this.#layout === "flat" ? flatTurn(turn) : request(turn.key) + turn.reply;
    return this.#counter.count(text);
  }

  tokensOf(i: number): number | undefined {
    return this.#turn(i) === undefined ? undefined : this.#tokens[i];
  }

  drafts(selection: Selection, question: string): Draft[] {
    if (this.#layout === "flat") return [{ role: "user", content: this.#flatPieces(selection, question) }];
    const drafts: Draft[] = [];
    for (const [{ key, reply }] of this.#chosen(selection)) {
      drafts.push({ role: "user", content: request(key) }, { role: "assistant", content: reply });
    }
    return [...drafts, { role: "user", content: question }];
  }

  *#flatPieces(selection: Selection, question: string): Generator<string> {
    yield "Below is a chat between a user and an assistant.\n\n";
    for (const [turn] of this.#chosen(selection)) yield flatTurn(turn);
    yield `User:\n${question}`;
  }

  depths(selection: Selection, replies: readonly string[]): number[] {
    const before = new Map<string, number>();
    let tokens = 0;
    for (const [turn, counted] of this.#chosen(selection)) {
      before.set(turn.reply, tokens);
      tokens += counted;
    }
    return replies.map((reply) => (100 * before.get(reply)!) / tokens);
  }

  /** Turns in order, each with its tokens. */
  *#chosen(selection: Selection): Generator<[Turn, number]> {
    for (const [kind, k] of interleaved(this.#positions, selectedUnits(selection))) {
      if (kind === "item") yield [this.#transcript.items[k]!, this.#itemTokens[k]!];
      else yield [this.#turns[unitAt(selection, k)]!, this.#tokens[unitAt(selection, k)]!];
    }
  }
}
