/** The text of tokens as they come, one at a time. */
import type { DecodeOptions, Tokenizer } from "./tokenizer.js";

/** Tokens that a character of four bytes may take. */
const mostOfCharacter = 4;
/** Tokens whose text waits for further ones at most. */
const mostUnsettled = 16;
/** Tokens of a prompt that are looked at for how a text goes on. */
const mostContext = 64;
const replacement = "\uFFFD";
/** A space as vocabularies have it; the first is SentencePiece's. */
const spacePieces = ["\u2581", " "];

/**
 * Decodes token by token with the same work for each, however long the text. A character whose bytes are in several tokens comes with the last of
 * them: pieces never hold half of one. Together the pieces are the text of all tokens; bytes that turn out to be no UTF-8 come as U+FFFD.
 *
 * One thing differs from decoding all tokens at once. Tokenizers that fall back to bytes (Llama 2's kind) write each byte of a run of byte tokens as U+FFFD
 * if any of them is no UTF-8, and a run may go on for as long as the text. What it begins with has been given by then: its whole characters come as such.
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
  #contextText = "";
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
    if (whole || finished) return this.#settle(text, this.#unsettled.length);
    return this.#unsettled.length < mostUnsettled ? this.#give(settled) : this.#settle(text, this.#lastBoundary(text));
  }

  /** The text that was still waiting for further tokens. */
  end(): string {
    return this.#settle(this.#text(), this.#unsettled.length);
  }

  #decode(ids: readonly number[]): string {
    return this.tokenizer.decode(ids, this.options);
  }

  /** Of the unsettled tokens, or some of them. */
  #text(ids: readonly number[] = this.#unsettled): string {
    const text = this.#decode([...this.#context, ...ids]);
    // Broken bytes after those of the context make these broken, too.
    return text.startsWith(this.#contextText) ? text.slice(this.#contextText.length) : this.#decode(ids);
  }

  /** How many of the unsettled tokens can be settled so that no character is divided, the last of which may be unfinished; all if that can't be told. */
  #lastBoundary(text: string): number {
    const count = this.#unsettled.length;
    for (let at = count - mostOfCharacter + 1; at > count - 2 * mostOfCharacter; at--) {
      if (this.#text(this.#unsettled.slice(0, at)) + this.#text(this.#unsettled.slice(at)) === text) return at;
    }
    return count;
  }

  #give(text: string): string {
    const piece = text.slice(this.#given);
    this.#given = Math.max(this.#given, text.length);
    return piece;
  }

  /** Gives the text of the first `count` unsettled tokens, of which all have `text`. */
  #settle(text: string, count: number): string {
    const rest = this.#unsettled.slice(count);
    const restLength = rest.length === 0 ? 0 : this.#text(rest).length;
    const settledLength = text.length - restLength;
    const piece = this.#give(text.slice(0, settledLength));
    if (this.#context.length !== 1) this.#goOnFrom(this.#unsettled.slice(0, count));
    this.#unsettled = rest;
    this.#length = restLength;
    this.#given -= settledLength;
    return piece;
  }

  #goOnFrom(ids: readonly number[]): void {
    const single = ids.findLast((id) => this.#isWhole([id]) || this.#isLeftOutFirst(id));
    if (single !== undefined) this.#setContext([single]);
    else if (this.#context.length === 0) {
      const start = ids.findLastIndex((_, i) => this.#isWhole(ids.slice(i)));
      if (start >= 0) this.#setContext(ids.slice(start));
      // Without any, the next token would be taken for the first of a text, and lose its space.
      else this.#setContext(this.#endsWhole(ids) ? ids : []);
    }
  }

  /** The space that the start of a text leaves out: in front of others it takes that upon itself. One that is a byte could be broken by the next. */
  #isLeftOutFirst(id: number): boolean {
    return spacePieces.some((piece) => id === this.tokenizer.idOf(piece)) && this.#decode([id]) === "";
  }

  /** Whether no character is cut off at either end. A U+FFFD there is none if there were more of them without its last or its first byte. */
  #isWhole(ids: readonly number[]): boolean {
    const text = this.#decode(ids);
    return (!text.startsWith(replacement) || text.length < this.#decode(ids.slice(1)).length) && this.#endsWhole(ids);
  }

  #endsWhole(ids: readonly number[]): boolean {
    const text = this.#decode(ids);
    return text !== "" && (!text.endsWith(replacement) || text.length < this.#decode(ids.slice(0, -1)).length);
  }

  #setContext(ids: readonly number[]): void {
    this.#context = ids;
    this.#contextText = this.#decode(ids);
  }
}
