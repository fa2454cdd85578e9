import { LlmeffError, NonFiniteError, OptionError } from "@llmeff/tensor";
import { massThreshold } from "./mass-threshold.js";

/** How the next token is drawn (models.md §9). Steps apply in the order of these fields. */
export interface SamplingOptions {
  /** Logits of tokens seen before, in the prompt or after it, are divided by it if positive, else multiplied; default 1, off. */
  repetitionPenalty?: number;
  /** Subtracted from the logits of tokens drawn before; default 0. */
  presencePenalty?: number;
  /** Subtracted from the logit of a token as often as it was drawn before; default 0. */
  frequencyPenalty?: number;
  /** Added to the logits of these ids; −∞ bans a token. */
  logitBias?: Readonly<Record<number, number>>;
  /** Divides the logits; 0 takes the most likely token, the lowest id on ties; default 1. */
  temperature?: number;
  /** Keeps the tokens at least as likely as the k-th; default all. */
  topK?: number;
  /** Keeps the most likely tokens while the mass before them is less than p, equally likely ones in the order of their ids; default 1. */
  topP?: number;
  /** Keeps tokens at least `minP` times as likely as the likeliest; default 0. */
  minP?: number;
}

export type ResolvedSampling = Required<Omit<SamplingOptions, "topK" | "logitBias">> &
  Pick<SamplingOptions, "topK"> & { logitBias: readonly (readonly [id: number, bias: number])[] };

/** @throws {OptionError} for a value outside its range */
export function resolveSampling(options: SamplingOptions): ResolvedSampling {
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, logitBias = {} } = options;
  const { temperature = 1, topK, topP = 1, minP = 0 } = options;
  const check = (name: string, valid: boolean, expected: string, value: unknown) => {
    if (!valid) throw new OptionError(`[sampling] ${name} must be ${expected}; received ${String(value)}.`);
  };
  check(
    "repetitionPenalty",
    repetitionPenalty > 0 && Number.isFinite(repetitionPenalty),
    "a positive number",
    repetitionPenalty,
  );
  check("presencePenalty", Number.isFinite(presencePenalty), "a finite number", presencePenalty);
  check("frequencyPenalty", Number.isFinite(frequencyPenalty), "a finite number", frequencyPenalty);
  check("temperature", temperature >= 0 && Number.isFinite(temperature), "a number ≥ 0", temperature);
  check("topK", topK === undefined || (Number.isSafeInteger(topK) && topK > 0), "a positive integer", topK);
  check("topP", topP > 0 && topP <= 1, "in (0, 1]", topP);
  check("minP", minP >= 0 && minP <= 1, "in [0, 1]", minP);
  const biases = Object.entries(logitBias).map(([key, bias]) => [Number(key), bias] as const);
  for (const [id, bias] of biases) {
    check("a key of logitBias", Number.isSafeInteger(id) && id >= 0, "a token id", id);
    const valid = Number.isFinite(bias) || bias === Number.NEGATIVE_INFINITY;
    check(`logitBias[${id}]`, valid, "a finite number or -Infinity", bias);
  }
  return {
    repetitionPenalty,
    presencePenalty,
    frequencyPenalty,
    logitBias: biases,
    temperature,
    topP,
    minP,
    ...(topK === undefined ? {} : { topK }),
  };
}

/** What was written before the next token. The repetition penalty falls on all of it, presence and frequency penalties on what was drawn. */
export interface History {
  prompt?: ReadonlySet<number>;
  /** How often each id was drawn. */
  drawn?: ReadonlyMap<number, number>;
}

/** Penalties and biases. */
function adjust(scores: Float64Array, options: ResolvedSampling, { prompt, drawn }: History): void {
  const { repetitionPenalty, presencePenalty, frequencyPenalty, logitBias } = options;
  const change = (id: number, to: (z: number) => number) => {
    if (id >= 0 && id < scores.length) scores[id] = to(scores[id]!);
  };
  if (repetitionPenalty !== 1) {
    const penalised = (z: number) => (z > 0 ? z / repetitionPenalty : z * repetitionPenalty);
    for (const id of prompt ?? []) change(id, penalised);
    for (const id of drawn?.keys() ?? []) if (!prompt?.has(id)) change(id, penalised);
  }
  if (presencePenalty !== 0 || frequencyPenalty !== 0) {
    for (const [id, count] of drawn ?? []) change(id, (z) => z - presencePenalty - count * frequencyPenalty);
  }
  for (const [id, bias] of logitBias) change(id, (z) => z + bias);
}

/** What scores that aren't numbers are refused with. */
export const notNumbers = () => new NonFiniteError("[sampling] the logits hold NaN. Did training diverge?");

/** @throws {NonFiniteError} unless one can draw by logits of which this is the largest, or NaN if one is */
export function checkLargest(logit: number, temperature: number): void {
  if (Number.isNaN(logit)) throw notNumbers();
  if (logit === Number.NEGATIVE_INFINITY || (logit === Number.POSITIVE_INFINITY && temperature > 0)) {
    throw new NonFiniteError(
      `[sampling] the largest logit is ${logit}; expected a finite one. Did training diverge, or does logitBias ban every token?`,
    );
  }
}

/** Whether tokens are drawn by other scores than the model's own. */
export function adjustsScores(options: ResolvedSampling): boolean {
  const { repetitionPenalty, presencePenalty, frequencyPenalty, logitBias } = options;
  return repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0 || logitBias.length > 0;
}

/** The id of the largest score, the lowest on ties. */
function likeliestId(scores: Float64Array): number {
  let best = 0;
  for (let id = 0; id < scores.length; id++) {
    if (Number.isNaN(scores[id]!)) throw notNumbers();
    if (scores[id]! > scores[best]!) best = id;
  }
  return best;
}

/**
 * Clears all but the heaviest tokens while the weight before them is less than a share `p` of the `total`; of equal ones the lowest ids are kept.
 *
 * @returns the weight of those kept
 */
function keepNucleus(weights: Float64Array, total: number, p: number): number {
  const target = p * total;
  const { value, above } = massThreshold(weights, target);
  let kept = keepHeavy(weights, value);
  let equal = 0;
  for (let id = 0; id < weights.length; id++) equal += Number(weights[id] === value);
  // Ties are counted, not added up: each would add a rounding error.
  for (let id = weights.length - 1; above + (equal - 1) * value >= target; id--) {
    if (weights[id] !== value) continue;
    weights[id] = 0;
    kept -= value;
    equal--;
  }
  return kept;
}

/** Clears tokens lighter than `least`. @returns the weight of those kept */
function keepHeavy(weights: Float64Array, least: number): number {
  let kept = 0;
  for (let id = 0; id < weights.length; id++) {
    // By a product: a branch that goes either way at random would take several times as long.
    const weight = weights[id]! * Number(weights[id]! >= least);
    weights[id] = weight;
    kept += weight;
  }
  return kept;
}

/**
 * Probabilities of the next token after penalties, biases, temperature and filters.
 *
 * @param logits - `[V]`
 * @param scores - `[V]`, written over and returned; default a new one
 * @returns `[V]`; zero where a filter removed the token; with temperature 0 all mass is on one token
 * @throws {NonFiniteError} if a logit is NaN, all are −∞, or at a temperature above 0 the largest is infinite
 */
export function tokenProbabilities(
  logits: ArrayLike<number>,
  options: ResolvedSampling,
  history: History = {},
  scores = new Float64Array(logits.length),
): Float64Array {
  const { temperature, topK, topP, minP } = options;
  scores.set(logits);
  adjust(scores, options, history);
  const best = likeliestId(scores);
  const highest = scores[best]!;
  checkLargest(highest, temperature);
  if (temperature === 0) return scores.fill(0).fill(1, best, best + 1);
  const least =
    topK === undefined || topK >= scores.length
      ? Number.NEGATIVE_INFINITY
      : massThreshold(scores, topK, { counted: true }).value;
  let total = 0;
  for (let id = 0; id < scores.length; id++) {
    // The largest becomes 0 first: divided by a tiny temperature, two large scores would both be infinite.
    const weight = scores[id]! < least ? 0 : Math.exp((scores[id]! - highest) / temperature);
    scores[id] = weight;
    total += weight;
  }
  if (topP < 1) total = keepNucleus(scores, total, topP);
  // The likeliest token weighs 1, and is kept by all filters.
  if (minP > 0) total = keepHeavy(scores, minP);
  for (let id = 0; id < scores.length; id++) scores[id]! /= total;
  return scores;
}

/** The smallest id whose cumulative probability exceeds `u` in [0, 1); the last possible one if rounding leaves none. */
export function drawToken(probabilities: Float64Array, u: number): number {
  let cumulative = 0;
  for (let id = 0; id < probabilities.length; id++) {
    cumulative += probabilities[id]!;
    if (cumulative > u) return id;
  }
  const last = probabilities.findLastIndex((probability) => probability > 0);
  if (last < 0) throw new LlmeffError("ERR_OPTION", "[sampling] no token has any probability.");
  return last;
}

let scratch = new Float64Array(0);

/** The token drawn by `u` from its probabilities. They are kept nowhere: for a large vocabulary a new array for each token would cost as much again. */
export function sampleToken(logits: ArrayLike<number>, options: ResolvedSampling, history: History, u: number): number {
  if (scratch.length < logits.length) scratch = new Float64Array(logits.length);
  return drawToken(tokenProbabilities(logits, options, history, scratch.subarray(0, logits.length)), u);
}
