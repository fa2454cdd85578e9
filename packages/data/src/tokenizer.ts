/** The interface of all tokenizers, and the plain-data form in which a checkpoint keeps one. */
import { IndexOutOfRangeError } from "@llmeff/native/errors";

export interface EncodeOptions {
  /** Add what the tokenizer's template adds around a text, such as a begin token; default true. Byte and character tokenizers add nothing. */
  addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leave special tokens out of the text; default true. */
  skipSpecialTokens?: boolean;
}

export interface Tokenizer {
  /** One more than the largest id: the rows that an embedding table needs. */
  readonly vocabSize: number;
  encode(text: string, options?: EncodeOptions): Int32Array;
  /** @throws {IndexOutOfRangeError} for an id outside `0 .. vocabSize - 1` */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
  /** Id of a token written as in the vocabulary, such as `"</s>"`; undefined if there is none. */
  idOf(token: string): number | undefined;
  /** Plain data from which `createTokenizer` makes the same tokenizer again. */
  toJSON(): TokenizerSpec;
}

export type TokenizerSpec =
  | { type: "byte" }
  | { type: "character"; characters: string }
  | { type: "hugging-face"; tokenizer: object };

/** Refuses ids that are no token. */
export function requireIds(where: string, ids: ArrayLike<number>, vocabSize: number): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw new IndexOutOfRangeError(
        `[${where}] token ids must be integers in 0..${vocabSize - 1}; received ${id} at index ${i}. Was it made with another tokenizer?`,
      );
    }
  }
}
