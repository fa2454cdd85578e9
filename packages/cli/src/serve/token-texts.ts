import type { Tokenizer } from "@llmeff/data";

/** The texts of single tokens, each made once: with the likeliest ones told, an answer names the same tokens over and over. */
export class TokenTexts {
  readonly #texts = new Map<number, string>();

  constructor(private readonly tokenizer: Tokenizer) {}

  /** What a token adds to a text: of two of them the second, since some tokenizers drop the space that begins a text. */
  of(id: number): string {
    let text = this.#texts.get(id);
    if (text === undefined) {
      const decode = (ids: number[]) => this.tokenizer.decode(ids, { skipSpecialTokens: false });
      text = decode([id, id]).slice(decode([id]).length);
      this.#texts.set(id, text);
    }
    return text;
  }
}
