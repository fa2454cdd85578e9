/** The text of tokens as they come, one at a time. */
import type { DecodeOptions, Tokenizer } from "./tokenizer.js";

/** Tokens that a character of four bytes may take. */
const mostOfCharacter = 4;
/** Tokens whose text waits for further ones at most. */
const mostUnsettled = 16;
/** Tokens of a prompt that are looked at for how a text goes on. */
const mostContext = 64;
const replacement = "\uFFFD";

/**
 * Decodes token by token with the same work for each, however long the text. A character whose bytes are in several tokens comes with the last of
 * them: pieces never hold half of one. Together the pieces are the text of all tokens; bytes that turn out to be no UTF-8 come as U+FFFD.
 *
 * @example
 * const decoder = new StreamingDecoder(tokenizer, prompt);
 * for await (const id of ids) process.stdout.write(decoder.push(id));
 * process.stdout.write(decoder.end());
 */
export class StreamingDecoder {
  /**
   * Tokens with a text, put before the unsettled ones: some tokenizers write a token differently at the start of a text. One whose text doesn't
   * depend on its neighbours, as bytes do, where there is one.
   */
  #context: readonly number[] = [];
  #contextLength = 0;
  #unsettled: number[] = [];
  #length = 0;
  /** Of the text of the unsettled tokens, how much was given. */
  #given = 0;

  /** @param prompt - the tokens before the first, whose text isn't given */
  constructor(
    private readonly tokenizer: Tokenizer,
    prompt: ArrayLike<number> = [],
    private readonly options: DecodeOptions = {},
  ) {
    this.#goOnFrom(Array.prototype.slice.call(prompt, -mostContext));
  }

  /** The text that this token settles; often that of the token itself. */
  push(id: number): string {
    this.#unsettled.push(id);
    const text = this.#text();
    const waiting = this.#unsettled.length < mostOfCharacter ? /\uFFFD+$/u : /\uFFFD{1,3}$/u;
    const settled = text.replace(waiting, "");
    // A token without a text may still be the space that the start of a text leaves out.
    const whole = settled !== "" && settled.length === text.length;
    // Where each byte of an unfinished character is written as U+FFFD, the text gets shorter when it turns out to be a U+FFFD itself.
    const finished = text.endsWith(replacement) && text.length < this.#length;
    this.#length = text.length;
    return whole || finished || this.#unsettled.length >= mostUnsettled ? this.#settle(text) : this.#give(settled);
  }

  /** The text that was still waiting for further tokens. */
  end(): string {
    return this.#settle(this.#text());
  }

  #decode(ids: readonly number[]): string {
    return this.tokenizer.decode(ids, this.options);
  }

  /** Of the unsettled tokens. */
  #text(): string {
    return this.#decode([...this.#context, ...this.#unsettled]).slice(this.#contextLength);
  }

  #give(text: string): string {
    const piece = text.slice(this.#given);
    this.#given = Math.max(this.#given, text.length);
    return piece;
  }

  #settle(text: string): string {
    const piece = this.#give(text);
    if (this.#context.length !== 1) this.#goOnFrom(this.#unsettled);
    this.#unsettled = [];
    this.#length = 0;
    this.#given = 0;
    return piece;
  }

  #goOnFrom(ids: readonly number[]): void {
    const single = ids.findLast((id) => this.#isWhole([id]));
    if (single !== undefined) this.#setContext([single]);
    else if (this.#context.length === 0) {
      const start = ids.findLastIndex((_, i) => this.#isWhole(ids.slice(i)));
      this.#setContext(start < 0 ? [] : ids.slice(start));
    }
  }

  /** Whether no character is cut off at either end. A U+FFFD there is none if there were more of them without its last or its first byte. */
  #isWhole(ids: readonly number[]): boolean {
    const text = this.#decode(ids);
    const shortens = (rest: readonly number[]) => text.length < this.#decode(rest).length;
    return (
      text !== "" &&
      (!text.startsWith(replacement) || shortens(ids.slice(1))) &&
      (!text.endsWith(replacement) || shortens(ids.slice(0, -1)))
    );
  }

  #setContext(ids: readonly number[]): void {
    this.#context = ids;
    this.#contextLength = this.#decode(ids).length;
  }
}
