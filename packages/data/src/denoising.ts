/**
 * Span corruption (models.md §5.1): which tokens of a sequence are hidden, and the inputs and targets that come of it.
 *
 * Noise and kept tokens are each cut into as many parts, which interleave, kept first: a sequence never begins with a hidden
 * span and always ends with one. Each hidden span is one sentinel in the inputs, and follows that sentinel in the targets.
 */
import { OptionError } from "@llmeff/native/errors";
import { IGNORE_INDEX } from "./batch.js";
import type { TextObjective } from "./objectives.js";
import type { Random } from "./random.js";

/** An objective that hides spans. */
export type Denoiser = Extract<TextObjective, { kind: "R" | "S" | "X" }>;

/** The ids that stand for hidden spans: `first`, `first + step`, …, `count` of them. T5 has 100, the highest id first (step −1). */
export interface Sentinels {
  first: number;
  /** Default −1. */
  step?: number;
  count: number;
}

/** First token and length. */
export type Span = readonly [start: number, length: number];

export interface SpecialTokens {
  sentinels?: Sentinels;
  /** Put before the inputs: UL2's `[NLU]`, `[S2S]`, `[NLG]` for R, S, X. */
  mode?: number | undefined;
  bos?: number | undefined;
  eos?: number | undefined;
}

/** One training sequence for a decoder. */
export interface Example {
  tokens: Int32Array;
  /** What each position predicts; `IGNORE_INDEX` where nothing. */
  targets: Int32Array;
  /** Leading tokens that see each other; 0 is a causal sequence. */
  prefixLength: number;
}

/** Rounds to the nearest integer, halves to the even one, as T5's code does. */
function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

const clip = (x: number, low: number, high: number) => Math.min(Math.max(x, low), high);

/**
 * How many tokens of a sequence are hidden and in how many spans: `noise = clip(round(L·r), 1, L−1)`, `spans = clip(round(noise/μ), 1, min(noise, L−noise))`;
 * one span for S.
 *
 * @param length - L, at least 2
 */
export function corruptionCounts(length: number, denoiser: Denoiser): { noise: number; spans: number } {
  if (!Number.isSafeInteger(length) || length < 2) {
    throw new OptionError(`[corruptionCounts] a sequence of at least 2 tokens is needed; received ${length}.`);
  }
  const noise = clip(roundHalfEven(length * denoiser.corruption), 1, length - 1);
  if (denoiser.kind === "S") return { noise, spans: 1 };
  return { noise, spans: clip(roundHalfEven(noise / denoiser.meanSpan), 1, Math.min(noise, length - noise)) };
}

/**
 * Sentinels that sequences of at most `maxLength` tokens need: one more than the spans that an objective hides of so many, for spans never become fewer
 * with the length; 0 if no objective hides any.
 *
 * @example
 * sentinelsNeeded(resolveObjectives("ul2"), 1280); // 214
 */
export function sentinelsNeeded(objectives: readonly TextObjective[], maxLength: number): number {
  const denoisers = objectives.filter((objective): objective is Denoiser => "corruption" in objective);
  return Math.max(0, ...denoisers.map((denoiser) => corruptionCounts(maxLength, denoiser).spans + 1));
}

/**
 * Hidden spans from the cuts of both kinds of tokens.
 *
 * @param noise - hidden tokens of the `length`
 * @param noiseCuts - ascending, in 1..noise−1; one fewer than spans
 * @param keptCuts - ascending, in 1..length−noise−1; as many
 */
export function spansFromCuts(
  length: number,
  noise: number,
  noiseCuts: readonly number[],
  keptCuts: readonly number[],
): Span[] {
  const parts = (cuts: readonly number[], total: number) => [...cuts, total].map((end, i) => end - (cuts[i - 1] ?? 0));
  const kept = parts(keptCuts, length - noise);
  let at = 0;
  return parts(noiseCuts, noise).map((hidden, i) => {
    const start = at + kept[i]!;
    at = start + hidden;
    return [start, hidden] as const;
  });
}

/** Spans drawn at random: every way to cut hidden and kept tokens into `spans` non-empty parts is equally likely. */
export function drawSpans(length: number, counts: { noise: number; spans: number }, random: Random): Span[] {
  const { noise, spans } = counts;
  const keptCuts = drawCuts(length - noise, spans - 1, random);
  return spansFromCuts(length, noise, drawCuts(noise, spans - 1, random), keptCuts);
}

/** `count` distinct numbers of 1..n−1, ascending (Floyd's sampling: as many draws as numbers). */
function drawCuts(n: number, count: number, random: Random): number[] {
  const chosen = new Set<number>();
  for (let last = n - count; last < n; last++) {
    const cut = random.integer(1, last + 1);
    chosen.add(chosen.has(cut) ? last : cut);
  }
  return [...chosen].sort((a, b) => a - b);
}

/**
 * Inputs `[mode] kept, sentinel₁, kept, sentinel₂, …` and targets `sentinel₁, span₁, sentinel₂, span₂, …, sentinelₙ₊₁ [eos]`.
 *
 * @throws {OptionError} if there are fewer sentinels than spans + 1
 */
export function corrupt(
  tokens: Int32Array,
  spans: readonly Span[],
  { sentinels, mode, eos }: SpecialTokens,
): { inputs: Int32Array; targets: Int32Array } {
  const available = sentinels?.count ?? 0;
  if (spans.length + 1 > available) {
    throw new OptionError(
      `[corrupt] ${spans.length} spans need ${spans.length + 1} sentinels; there are ${available}. Give more, or limit the spans.`,
    );
  }
  const { first, step = -1 } = sentinels!;
  const inputs: ArrayLike<number>[] = [optional(mode)];
  const targets: ArrayLike<number>[] = [];
  let at = 0;
  for (const [i, [start, length]] of spans.entries()) {
    const sentinel = [first + i * step];
    inputs.push(tokens.subarray(at, start), sentinel);
    at = start + length;
    targets.push(sentinel, tokens.subarray(start, at));
  }
  inputs.push(tokens.subarray(at));
  targets.push([first + spans.length * step], optional(eos));
  return { inputs: joined(inputs), targets: joined(targets) };
}

/** A token that there may be. */
export const optional = (id: number | undefined): readonly number[] => (id === undefined ? [] : [id]);

/** Tokens one after the other. Arguments of a call, as spreading makes of them, are limited to far fewer than a long context has. */
export function joined(parts: readonly ArrayLike<number>[]): Int32Array {
  const whole = new Int32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/**
 * Inputs and targets as one sequence for a decoder, `[bos] inputs targets`: the inputs see each other, and every token after them is predicted.
 *
 * @param options.lossOnInputs - also predict the tokens of the inputs; default false
 */
export function decoderOnly(
  inputs: Int32Array,
  targets: Int32Array,
  options: { bos?: number | undefined; lossOnInputs?: boolean } = {},
): Example {
  const { bos, lossOnInputs = false } = options;
  const begin = optional(bos);
  const tokens = joined([begin, inputs, targets]);
  const prefixLength = begin.length + inputs.length;
  const labels = new Int32Array(tokens.length).fill(IGNORE_INDEX);
  labels.set(tokens.subarray(1));
  if (!lossOnInputs && prefixLength > 0) labels.fill(IGNORE_INDEX, 0, prefixLength - 1); // −1 would mean all but one
  return { tokens, targets: labels, prefixLength };
}
