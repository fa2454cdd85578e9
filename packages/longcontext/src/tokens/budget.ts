/** How many units of filler fit a budget, verified against the real tokenizer. */
import { OptionError } from "@llmeff/native/errors";
import { BudgetTooSmallError, HaystackTooShortError } from "../errors.js";
import type { Message } from "../sample.js";
import { countText, type Tokenizer } from "./tokenizer.js";
import { UnitCounter } from "./unit-counter.js";

/** A message whose text may be in pieces, so that a long one can be counted without being put together. */
export interface Draft {
  role: Message["role"];
  content: string | Iterable<string>;
}

/** Tokens that a chat template adds around the contents of messages; it must not read the contents. */
export type Overhead = (messages: readonly Draft[]) => number;

/** A deterministic stream of filler; unit `i` never depends on how many are used. */
export interface UnitStream {
  /** Stand-alone tokens of unit `i`, undefined after the last; asked in ascending order, again for units already seen. */
  tokensOf(i: number): number | undefined;
}

/** Units `0 .. count - 1` and the later ones in `tail`, ascending. */
export interface Selection {
  readonly count: number;
  readonly tail: readonly number[];
}

/** Index of the `k`-th chosen unit. */
export function unitAt({ count, tail }: Selection, k: number): number {
  return k < count ? k : tail[k - count]!;
}

export function selectedUnits({ count, tail }: Selection): number {
  return count + tail.length;
}

export interface FitOptions {
  /** Names the caller in errors. */
  where: string;
  render: (selection: Selection) => Draft[];
  units: UnitStream;
  /** Prompt and answer together. */
  maxTokens: number;
  /** Kept for the answer. */
  reserve: number;
  tokenizer: Tokenizer;
  overhead?: Overhead | undefined;
  /** The filler may end below the budget, as a book does; default: that is an error. */
  finite?: boolean | undefined;
}

export interface Fit {
  selection: Selection;
  messages: Message[];
  promptTokens: number;
  /** Of the units used, of the first that did not fit, and what it would have added. */
  maxUnitTokens: number;
  /** `promptTokens / room`. */
  fill: number;
}

/** A remainder from which a later, smaller unit is looked for. */
const SMALL_REMAINDER = 64;
const TAIL_CANDIDATES = 8;

export function countPrompt(messages: readonly Draft[], tokenizer: Tokenizer, overhead?: Overhead): number {
  let tokens = overhead?.(messages) ?? 0;
  for (const { content } of messages) tokens += countText(tokenizer, content);
  return tokens;
}

/** How far a prompt may stay below its room when the filler does not run out. */
export function budgetTolerance(room: number, maxUnitTokens: number): number {
  return Math.max(maxUnitTokens, 0.02 * room + 64);
}

interface Probe extends Selection {
  tokens: number;
}

/** Pieces joined at once: few enough that they are not held as single strings, each with its header, until the end. */
const BATCH = 4096;

function joined(pieces: Iterable<string>): string {
  const batches: string[] = [];
  let batch: string[] = [];
  for (const piece of pieces) {
    if (batch.push(piece) === BATCH) {
      batches.push(batch.join(""));
      batch = [];
    }
  }
  return batches.join("") + batch.join("");
}

const whole = ({ role, content }: Draft): Message => ({
  role,
  content: typeof content === "string" ? content : joined(content),
});

/**
 * The largest `n` with `N(n) <= room` for which `N(n + 1) > room`, where `N(n)` counts the prompt as rendered with `n` units and `room` is
 * `maxTokens - reserve`; then up to eight later units that still fit what is left.
 *
 * Subword tokenizers are not additive, so stand-alone counts give the first guess only. From it the search brackets the answer by
 * interpolation, halving where that is slow: three full counts when counts add up, about twelve at the worst. Prompts are counted in the
 * pieces in which they are rendered and put together once.
 *
 * @throws {BudgetTooSmallError} if the prompt without filler exceeds the room
 * @throws {HaystackTooShortError} if the units end with more than the tolerance unfilled, unless `finite`
 */
export function fitToBudget(options: FitOptions): Fit {
  const { where, render, units, maxTokens, reserve, tokenizer, overhead, finite = false } = options;
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 1) {
    throw new OptionError(`[${where}] maxTokens must be a positive integer; received ${maxTokens}.`);
  }
  const room = maxTokens - reserve;
  const probe = (count: number, tail: readonly number[] = []): Probe => ({
    count,
    tail,
    tokens: countPrompt(render({ count, tail }), tokenizer, overhead),
  });
  const fixed = probe(0);
  if (fixed.tokens > room) throw new BudgetTooSmallError(where, fixed.tokens + reserve, maxTokens);
  const bracket = largestFit(fixed, room, units, probe);
  if (bracket.over === undefined && !finite && room - bracket.fit.tokens > budgetTolerance(room, 0)) {
    throw new HaystackTooShortError(where, bracket.fit.tokens, room);
  }
  const fit = withTail(bracket.fit, room, units, probe);
  const selection = { count: fit.count, tail: fit.tail };
  const added = bracket.over === undefined ? 0 : bracket.over - bracket.fit.tokens;
  return {
    selection,
    messages: render(selection).map(whole),
    promptTokens: fit.tokens,
    maxUnitTokens: Math.max(added, largestUnit(units, fit)),
    fill: fit.tokens / room,
  };
}

/** Units whose stand-alone counts fill `room` tokens. */
function estimate(units: UnitStream, room: number): number {
  let n = 0;
  for (let sum = 0; ; n++) {
    const tokens = units.tokensOf(n);
    if (tokens === undefined || sum + tokens > room) return n;
    sum += tokens;
  }
}

/** The largest fit, and the tokens with one unit more (undefined where the stream ends). */
function largestFit(
  fixed: Probe,
  room: number,
  units: UnitStream,
  probe: (count: number) => Probe,
): { fit: Probe; over: number | undefined } {
  let fit = fixed;
  let over: { count: number; tokens: number } | undefined;
  let next = Math.max(1, estimate(units, room - fixed.tokens));
  let step = 1;
  for (let round = 0; over === undefined || over.count > fit.count + 1; round++) {
    if (over === undefined) next = lastUnitUpTo(units, next);
    if (next <= fit.count) break;
    const tried = probe(next);
    if (tried.tokens <= room) fit = tried;
    else over = tried;
    if (over === undefined) {
      const average = (fit.tokens - fixed.tokens) / fit.count;
      step = Math.max(round === 0 ? 1 : 2 * step, Math.floor((room - fit.tokens) / Math.max(1, average)));
      next = fit.count + step;
    } else {
      const slope = (over.tokens - fit.tokens) / (over.count - fit.count);
      const guess = fit.count + Math.floor((room - fit.tokens) / slope);
      // An interpolation can creep along one side; every third round halves instead.
      const middle = Math.floor((fit.count + over.count) / 2);
      next = Math.min(over.count - 1, Math.max(fit.count + 1, round % 3 === 2 ? middle : guess));
    }
  }
  return { fit, over: over?.tokens };
}

function lastUnitUpTo(units: UnitStream, count: number): number {
  if (units.tokensOf(count - 1) !== undefined) return count;
  let low = 0;
  for (let high = count; high > low; ) {
    const middle = Math.ceil((low + high) / 2);
    if (units.tokensOf(middle - 1) === undefined) high = middle - 1;
    else low = middle;
  }
  return low;
}

function withTail(fit: Probe, room: number, units: UnitStream, probe: (count: number, tail: number[]) => Probe): Probe {
  let best = fit;
  for (let i = fit.count + 1; i <= fit.count + TAIL_CANDIDATES; i++) {
    const remainder = room - best.tokens;
    const tokens = units.tokensOf(i);
    if (tokens === undefined || remainder < SMALL_REMAINDER) break;
    if (tokens > remainder) continue;
    const tried = probe(fit.count, [...best.tail, i]);
    if (tried.tokens <= room) best = tried;
  }
  return best;
}

function largestUnit(units: UnitStream, selection: Selection): number {
  let largest = 0;
  for (let k = 0; k < selectedUnits(selection); k++) {
    largest = Math.max(largest, units.tokensOf(unitAt(selection, k)) ?? 0);
  }
  return largest;
}

/** A stream of texts made one after another and kept: unit `i` is made when it is first asked for. */
export class TextUnits implements UnitStream {
  readonly #make: (i: number) => string | undefined;
  readonly #counter: UnitCounter;
  readonly #separator: string;
  readonly #texts: string[] = [];
  readonly #tokens: number[] = [];
  #ended = false;

  /**
   * @param make - called once for each `i`, in order; undefined ends the stream
   * @param separator - what stands between two units when rendered; a part of the unit's count
   */
  constructor(make: (i: number) => string | undefined, tokenizer: Tokenizer, separator = "\n") {
    this.#make = make;
    this.#counter = new UnitCounter(tokenizer);
    this.#separator = separator;
  }

  text(i: number): string | undefined {
    while (this.#texts.length <= i && !this.#ended) {
      const text = this.#make(this.#texts.length);
      if (text === undefined) this.#ended = true;
      else {
        this.#texts.push(text);
        this.#tokens.push(this.#counter.count(text + this.#separator));
      }
    }
    return this.#texts[i];
  }

  tokensOf(i: number): number | undefined {
    return this.text(i) === undefined ? undefined : this.#tokens[i];
  }
}
