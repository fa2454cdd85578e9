/** What a server asks its tokenizer, in a form that can be handed to another thread. */
import type { Tokenizer } from "@llmeff/data";
import { LlmeffError } from "@llmeff/native/errors";

export type TokenizerTask =
  | { encode: readonly string[]; addSpecialTokens: boolean }
  | { decode: readonly Int32Array[] };

/** In the order of the task's texts or tokens; or why they can't be divided or written. */
export type TokenizerAnswer =
  | { ids: Int32Array[] }
  | { texts: string[] }
  | { refused: { code: string; message: string } };

/** Characters of the texts, or tokens. */
export function taskSize(task: TokenizerTask): number {
  return ("encode" in task ? task.encode : task.decode).reduce((sum, { length }) => sum + length, 0);
}

export function perform(tokenizer: Tokenizer, task: TokenizerTask): TokenizerAnswer {
  try {
    if ("decode" in task) return { texts: task.decode.map((ids) => tokenizer.decode(ids)) };
    const { encode, addSpecialTokens } = task;
    return { ids: encode.map((text) => tokenizer.encode(text, { addSpecialTokens })) };
  } catch (error) {
    if (error instanceof LlmeffError) return { refused: { code: error.code, message: error.message } };
    throw error;
  }
}
