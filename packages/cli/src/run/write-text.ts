/** Text that a model writes, piece by piece. */
import { StopStrings, StreamingDecoder, type Tokenizer } from "@llmeff/data";
import type { BatchGenerator, GeneratedToken, SequenceOptions } from "@llmeff/models";

export interface WriteOptions extends SequenceOptions {
  /** The text ends before the first of these. */
  stop?: readonly string[];
}

/** What a token adds to a text: nothing while a character or a stop string isn't decided; after the last token what was held back. */
export interface TextPiece {
  text: string;
  /** Characters of the token itself, whether they are held back or not. */
  length: number;
  /** Undefined in the last piece. */
  token: GeneratedToken | undefined;
  /** Whether it is one of the prompt's, which come first under `promptLogProbs` and add nothing. */
  ofPrompt: boolean;
}

/** Why a text ends: at a stop token or string, or because it is as long as it may be. */
export type Ending = "stop" | "length";

/** Yields the continuation of a prompt as it comes, and returns why it ended. */
export async function* writeText(
  batch: BatchGenerator,
  tokenizer: Tokenizer,
  prompt: ArrayLike<number>,
  { stop = [], ...options }: WriteOptions,
): AsyncGenerator<TextPiece, Ending> {
  const stopStrings = new StopStrings(stop);
  const decoder = new StreamingDecoder(tokenizer, prompt);
  // Rows of the model beyond the tokenizer's tokens have no text: they pad its table, or are sentinels and the like. One that ends texts may follow it.
  const known = Math.max(tokenizer.vocabSize, ...(options.stopTokens ?? []).map((id) => id + 1));
  const vocabSize = Math.min(known, batch.vocabSize);
  let ofPrompt = options.promptLogProbs ? prompt.length - 1 : 0;
  for await (const token of batch.generate(prompt, { ...options, vocabSize })) {
    if (ofPrompt-- > 0) {
      yield { text: "", length: 0, token, ofPrompt: true };
      continue;
    }
    const ends = options.stopTokens?.includes(token.id) ?? false;
    const own = ends ? decoder.end() : decoder.push(token.id);
    const text = stopStrings.push(own);
    yield { text: ends ? text + stopStrings.end() : text, length: own.length, token, ofPrompt: false };
    if (ends || stopStrings.found !== undefined) return "stop";
  }
  const rest = stopStrings.push(decoder.end());
  yield { text: rest + stopStrings.end(), length: 0, token: undefined, ofPrompt: false };
  return stopStrings.found === undefined ? "length" : "stop";
}
