import { LlmeffError, NonFiniteError, OptionError } from "@llmeff/tensor";

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
  /** Keeps the most likely tokens while the mass before them is less than p; default 1. */
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

/** Logits after penalties and biases. */
function adjusted(logits: ArrayLike<number>, options: ResolvedSampling, { prompt, drawn }: History): Float64Array {
  const { repetitionPenalty, presencePenalty, frequencyPenalty, logitBias } = options;
  const scores = Float64Array.from(logits);
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
  return scores;
}

const notNumbers = () => new NonFiniteError("[sampling] the logits hold NaN. Did training diverge?");

/** @throws {NonFiniteError} unless one can draw by logits of which this is the largest, or NaN if one is */
export function checkLargest(logit: number, temperature: number): void {
  if (Number.isNaN(logit)) throw notNumbers();
  if (logit === Number.NEGATIVE_INFINITY || (logit === Number.POSITIVE_INFINITY && temperature > 0)) {
    throw new NonFiniteError(
      `[sampling] the largest logit is ${logit}; expected a finite one. Did training diverge, or does logitBias ban every token?`,
    );
  }
}

/** Whether the likeliest token by the model's own scores is the one that is drawn. */
export function takesLikeliest(options: ResolvedSampling): boolean {
  const { temperature, repetitionPenalty, presencePenalty, frequencyPenalty, logitBias } = options;
  const adjusts = repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0 || logitBias.length > 0;
  return temperature === 0 && !adjusts;
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

/** The k-th largest value (Hoare's quickselect); `values` are rearranged. */
function kthLargest(values: Float64Array, k: number): number {
  let [low, high] = [0, values.length - 1];
  while (low < high) {
    const pivot = values[(low + high) >> 1]!;
    let [i, j] = [low, high];
    while (i <= j) {
      while (values[i]! > pivot) i++;
      while (values[j]! < pivot) j--;
      if (i <= j) {
        [values[i], values[j]] = [values[j]!, values[i]!];
        i++;
        j--;
      }
    }
    if (k - 1 <= j) high = j;
    else if (k - 1 >= i) low = i;
    else break;
  }
  return values[k - 1]!;
}

/** Weights `e^score` become probabilities. */
function normalise(weights: Float64Array): void {
  let total = 0;
  for (let id = 0; id < weights.length; id++) total += weights[id]!;
  for (let id = 0; id < weights.length; id++) weights[id]! /= total;
}

/** Clears all but the most likely tokens while the mass before them is less than `p`; equal ones in the order of their ids. */
function keepNucleus(probabilities: Float64Array, p: number): void {
  // Sorting all of a large vocabulary costs more than the rest together. The kept ones are among those within a factor of the likeliest as soon as
  // these have mass p.
  let highest = 0;
  for (let id = 0; id < probabilities.length; id++) highest = Math.max(highest, probabilities[id]!);
  const sorted = (threshold: number) => {
    const ids: number[] = [];
    for (let id = 0; id < probabilities.length; id++) {
      if (probabilities[id]! > 0 && probabilities[id]! >= threshold) ids.push(id);
    }
    return ids.sort((a, b) => probabilities[b]! - probabilities[a]! || a - b);
  };
  let kept = 0;
  let candidates: number[] = [];
  for (let factor = 2 ** -8; ; factor *= 2 ** -8) {
    candidates = sorted(highest * factor);
    let before = 0;
    for (kept = 0; kept < candidates.length && (kept === 0 || before < p); kept++)
      before += probabilities[candidates[kept]!]!;
    if (before >= p || factor < Number.MIN_VALUE) break;
  }
  const survivors = candidates.slice(0, kept).map((id) => [id, probabilities[id]!] as const);
  probabilities.fill(0);
  for (const [id, probability] of survivors) probabilities[id] = probability;
}

/** Clears the tokens less likely than `minP` times the likeliest. */
function keepProbable(probabilities: Float64Array, minP: number): void {
  let highest = 0;
  for (let id = 0; id < probabilities.length; id++) highest = Math.max(highest, probabilities[id]!);
  for (let id = 0; id < probabilities.length; id++) if (probabilities[id]! < minP * highest) probabilities[id] = 0;
}

/**
 * Probabilities of the next token after penalties, biases, temperature and filters.
 *
 * @param logits - `[V]`
 * @returns `[V]`; zero where a filter removed the token; with temperature 0 all mass is on one token
 * @throws {NonFiniteError} if a logit is NaN, all are −∞, or at a temperature above 0 the largest is infinite
 */
export function tokenProbabilities(
  logits: ArrayLike<number>,
  options: ResolvedSampling,
  history: History = {},
): Float64Array {
  const { temperature, topK, topP, minP } = options;
  const scores = adjusted(logits, options, history);
  const best = likeliestId(scores);
  const highest = scores[best]!;
  checkLargest(highest, temperature);
  if (temperature === 0) return new Float64Array(scores.length).fill(1, best, best + 1);
  const threshold =
    topK === undefined || topK >= scores.length ? Number.NEGATIVE_INFINITY : kthLargest(scores.slice(), topK);
  // The largest becomes 0 first: divided by a tiny temperature, two large scores would both be infinite.
  for (let id = 0; id < scores.length; id++)
    scores[id] = scores[id]! < threshold ? 0 : Math.exp((scores[id]! - highest) / temperature);
  normalise(scores);
  if (topP < 1) {
    keepNucleus(scores, topP);
    normalise(scores);
  }
  if (minP > 0) {
    keepProbable(scores, minP);
    normalise(scores);
  }
  return scores;
}

/** The smallest id whose cumulative probability exceeds `u` in [0, 1); the last possible one if rounding leaves none. */
export function drawToken(probabilities: Float64Array, u: number): number {
  let cumulative = 0;
  let last = -1;
  for (let id = 0; id < probabilities.length; id++) {
    if (probabilities[id]! === 0) continue;
    cumulative += probabilities[id]!;
    last = id;
    if (cumulative > u) return id;
  }
  if (last < 0) throw new LlmeffError("ERR_OPTION", "[sampling] no token has any probability.");
  return last;
}
