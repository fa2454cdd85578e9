/** One answer of a model, piece by piece. */
import { StopStrings, StreamingDecoder, type Tokenizer } from "@llmeff/data";
import type { BatchGenerator, GeneratedToken, SequenceOptions, TokenLogProb } from "@llmeff/models";

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
  finish: "stop" | "length";
  /** Tokens drawn, the one that ends a text included. */
  tokens: number;
}

export interface ChoiceOptions extends SequenceOptions {
  stop: readonly string[];
  stopTokens: readonly number[];
}

/**
 * Writes an answer until a stop token, a stop text or the limit. Tokens that end a text are neither in the text nor among the scored ones; leaving
 * the generator frees the sequence's memory.
 */
export async function* writeChoice(
  batch: Pick<BatchGenerator, "generate">,
  tokenizer: Tokenizer,
  prompt: ArrayLike<number>,
  { stop, ...options }: ChoiceOptions,
): AsyncGenerator<Piece, ChoiceEnd, undefined> {
  const decoder = new StreamingDecoder(tokenizer, prompt);
  const stops = new StopStrings(stop);
  let drawn = 0;
  let ended = false;
  for await (const token of batch.generate(prompt, options)) {
    drawn++;
    ended = options.stopTokens.includes(token.id);
    if (ended) break;
    yield { text: stops.push(decoder.push(token.id)), tokens: [scored(tokenizer, token)] };
    if (stops.found !== undefined) return { finish: "stop", tokens: drawn };
  }
  const text = stops.push(decoder.end()) + stops.end();
  if (text !== "") yield { text, tokens: [] };
  return { finish: ended || stops.found !== undefined ? "stop" : "length", tokens: drawn };
}

function scored(tokenizer: Tokenizer, { top, ...token }: GeneratedToken): ScoredToken {
  const inWords = ({ id, logProb }: TokenLogProb) => ({ text: textOf(tokenizer, id), logProb });
  return { ...inWords(token), top: top.map(inWords) };
}

/** What a token adds to a text: of two of them the second, since some tokenizers drop the space that begins a text. */
function textOf(tokenizer: Tokenizer, id: number): string {
  const decode = (ids: number[]) => tokenizer.decode(ids, { skipSpecialTokens: false });
  return decode([id, id]).slice(decode([id]).length);
}
