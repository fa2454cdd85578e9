/** One answer of a model, piece by piece. */
import type { Tokenizer } from "@llmeff/data";
import type { BatchGenerator, GeneratedToken, TokenLogProb } from "@llmeff/models";
import { type Ending, type WriteOptions, writeText } from "../run/write-text.js";

/** A token in words, with the log of its probability. */
export interface ScoredToken {
  text: string;
  logProb: number;
  top: { text: string; logProb: number }[];
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

/** Writes an answer. Tokens that end a text aren't among the scored ones; leaving the generator frees the sequence's memory. */
export async function* writeChoice(
  batch: BatchGenerator,
  tokenizer: Tokenizer,
  prompt: ArrayLike<number>,
  options: WriteOptions,
): AsyncGenerator<Piece, ChoiceEnd, undefined> {
  const pieces = writeText(batch, tokenizer, prompt, options);
  try {
    for (let drawn = 0; ; ) {
      const { value, done } = await pieces.next();
      if (done) return { finish: value, tokens: drawn };
      const { text, token } = value;
      if (token !== undefined) drawn++;
      const isText = token !== undefined && !options.stopTokens?.includes(token.id);
      yield { text, tokens: isText ? [scored(tokenizer, token)] : [] };
    }
  } finally {
    await pieces.return("stop");
  }
}

function scored(tokenizer: Tokenizer, { top, ...token }: GeneratedToken): ScoredToken {
  const inWords = ({ id, logProb }: TokenLogProb) => ({ text: textOf(tokenizer, id), logProb });
  return { ...inWords(token), top: top.map(inWords) };
}

/** What a token adds to a text: nothing, if it isn't the tokenizer's but ends texts; of two of them the second, since some tokenizers drop the space that begins a text. */
function textOf(tokenizer: Tokenizer, id: number): string {
  if (id >= tokenizer.vocabSize) return "";
  const decode = (ids: number[]) => tokenizer.decode(ids, { skipSpecialTokens: false });
  return decode([id, id]).slice(decode([id]).length);
}
