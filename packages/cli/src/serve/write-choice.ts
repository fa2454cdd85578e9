/** One answer of a model, piece by piece. */
import { StreamingDecoder, type Tokenizer } from "@llmeff/data";
import type { BatchGenerator, GeneratedToken, TokenLogProb } from "@llmeff/models";
import { type Ending, type WriteOptions, writeText } from "../run/write-text.js";
import type { TokenTexts } from "./token-texts.js";

/** What is to be continued. */
export interface Prompt {
  ids: ArrayLike<number>;
  /** What answers begin with, beside what is written. */
  echo?: string;
}

/** A token in words, with the log of its probability. */
export interface ScoredToken {
  text: string;
  /** Null for the first token of a prompt: there is nothing that it would follow. */
  logProb: number | null;
  top: { text: string; logProb: number }[];
  /** Characters that it adds to the text that is told. */
  length: number;
  /** Whether it is drawn to end the text, and so no part of it. */
  ends: boolean;
}

/** What has come of an answer since the piece before; the text of a token may come a piece later than its score. */
export interface Piece {
  text: string;
  tokens: ScoredToken[];
}

export interface ChoiceEnd {
  finish: Ending;
  /** Tokens drawn, the one that ends a text included. */
  tokens: number;
}

export interface ChoiceWriter {
  batch: BatchGenerator;
  tokenizer: Tokenizer;
  texts: TokenTexts;
}

/** Writes an answer. Under `promptLogProbs` the first piece is the prompt's; leaving the generator frees the sequence's memory. */
export async function* writeChoice(
  { batch, tokenizer, texts }: ChoiceWriter,
  prompt: Prompt,
  options: WriteOptions,
): AsyncGenerator<Piece, ChoiceEnd, undefined> {
  const pieces = writeText(batch, tokenizer, prompt.ids, options);
  let echo = options.promptLogProbs ? new ScoredEcho(tokenizer, texts, prompt) : undefined;
  try {
    for (let drawn = 0; ; ) {
      if (echo?.isWhole) {
        yield echo.piece();
        echo = undefined;
      }
      const { value, done } = await pieces.next();
      if (done) return { finish: value, tokens: drawn };
      const { text, length, token, ofPrompt } = value;
      if (ofPrompt) {
        echo!.push(token!);
        continue;
      }
      if (token !== undefined) drawn++;
      yield { text, tokens: token === undefined ? [] : [drawnToken(texts, token, length, options)] };
    }
  } finally {
    await pieces.return("stop");
  }
}

function drawnToken(
  texts: TokenTexts,
  token: GeneratedToken,
  length: number,
  { stopTokens }: WriteOptions,
): ScoredToken {
  return { ...inWords(texts, token), length, ends: stopTokens?.includes(token.id) ?? false };
}

function inWords(texts: TokenTexts, { top, ...token }: GeneratedToken) {
  const worded = ({ id, logProb }: TokenLogProb) => ({ text: texts.of(id), logProb });
  return { ...worded(token), top: top.map(worded) };
}

/** The tokens of a prompt as they come, with the places that they have in its text. */
class ScoredEcho {
  readonly #tokens: ScoredToken[] = [];
  readonly #decoder: StreamingDecoder;
  /** Characters of the tokens so far. */
  #written = 0;

  constructor(
    tokenizer: Tokenizer,
    private readonly texts: TokenTexts,
    private readonly prompt: Prompt,
  ) {
    this.#decoder = new StreamingDecoder(tokenizer);
    const first = prompt.ids[0]!;
    this.#add({ text: texts.of(first), logProb: null, top: [] }, first);
  }

  get isWhole(): boolean {
    return this.#tokens.length === this.prompt.ids.length;
  }

  push(token: GeneratedToken): void {
    this.#add(inWords(this.texts, token), token.id);
  }

  piece(): Piece {
    // Where a tokenizer writes a text otherwise than it was, what is drawn still begins at its end.
    const last = this.#tokens.at(-1)!;
    const { echo = "" } = this.prompt;
    last.length += echo.length - this.#written;
    return { text: echo, tokens: this.#tokens };
  }

  #add(scored: Pick<ScoredToken, "text" | "logProb" | "top">, id: number): void {
    const { length } = this.#decoder.push(id);
    this.#written += length;
    this.#tokens.push({ ...scored, length, ends: false });
  }
}
