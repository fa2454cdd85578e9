import { accumulationDType, LlmeffError, NonFiniteError, OptionError, type Tensor } from "@llmeff/tensor";

/** How the next token is drawn (models.md §9). Steps apply in the order of these fields. */
export interface SamplingOptions {
  /** Logits of tokens seen before are divided by it if positive, else multiplied; default 1, off. */
  repetitionPenalty?: number;
  /** Divides the logits; 0 takes the most likely token, the lowest id on ties; default 1. */
  temperature?: number;
  /** Keeps the tokens at least as likely as the k-th; default all. */
  topK?: number;
  /** Keeps the most likely tokens while the mass before them is less than p; default 1. */
  topP?: number;
  /** Keeps tokens at least `minP` times as likely as the likeliest; default 0. */
  minP?: number;
}

export type ResolvedSampling = Required<Omit<SamplingOptions, "topK">> & Pick<SamplingOptions, "topK">;

/** @throws {OptionError} for a value outside its range */
export function resolveSampling(options: SamplingOptions): ResolvedSampling {
  const { repetitionPenalty = 1, temperature = 1, topK, topP = 1, minP = 0 } = options;
  const check = (name: string, valid: boolean, expected: string, value: unknown) => {
    if (!valid) throw new OptionError(`[sampling] ${name} must be ${expected}; received ${String(value)}.`);
  };
  check(
    "repetitionPenalty",
    repetitionPenalty > 0 && Number.isFinite(repetitionPenalty),
    "a positive number",
    repetitionPenalty,
  );
  check("temperature", temperature >= 0 && Number.isFinite(temperature), "a number ≥ 0", temperature);
  check("topK", topK === undefined || (Number.isSafeInteger(topK) && topK > 0), "a positive integer", topK);
  check("topP", topP > 0 && topP <= 1, "in (0, 1]", topP);
  check("minP", minP >= 0 && minP <= 1, "in [0, 1]", minP);
  return { repetitionPenalty, temperature, topP, minP, ...(topK === undefined ? {} : { topK }) };
}

/** Logits as numbers: `data` gives those of half-precision models as bits. */
export async function readLogits(logits: Tensor): Promise<Float32Array | Float64Array> {
  using wide = logits.astype(accumulationDType(logits.dtype));
  return (await wide.data()) as Float32Array | Float64Array;
}

function maximum(values: Float64Array): number {
  return values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
}

function softmax(logits: Float64Array): Float64Array {
  const highest = maximum(logits);
  const weights = logits.map((z) => Math.exp(z - highest));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}

/** Token ids from the largest value to the smallest; equal ones in the order of their ids. */
function descending(values: Float64Array): Uint32Array {
  return Uint32Array.from(values.keys()).sort((a, b) => values[b]! - values[a]! || a - b);
}

/**
 * Probabilities of the next token after penalty, temperature and filters.
 *
 * @param logits - `[V]`
 * @param seen - ids that the repetition penalty falls on
 * @returns `[V]`; zero where a filter removed the token; with temperature 0 all mass is on one token
 * @throws {NonFiniteError} if a logit is NaN, or at a temperature above 0 the largest is infinite
 */
export function tokenProbabilities(
  logits: ArrayLike<number>,
  options: ResolvedSampling,
  seen: Iterable<number> = [],
): Float64Array {
  const { repetitionPenalty, temperature, topK, topP, minP } = options;
  const scores = Float64Array.from(logits);
  if (scores.some(Number.isNaN)) throw new NonFiniteError("[sampling] the logits hold NaN. Did training diverge?");
  for (const id of new Set(seen)) {
    if (id >= 0 && id < scores.length) {
      const z = scores[id]!;
      scores[id] = z > 0 ? z / repetitionPenalty : z * repetitionPenalty;
    }
  }
  if (temperature === 0) {
    const best = scores.reduce((at, z, id) => (z > scores[at]! ? id : at), 0);
    return new Float64Array(scores.length).fill(1, best, best + 1);
  }
  // The largest becomes 0 first: divided by a tiny temperature, two large scores would both be infinite.
  const highest = maximum(scores);
  if (!Number.isFinite(highest)) {
    throw new NonFiniteError(
      `[sampling] the largest logit is ${highest}; expected a finite one. Did training diverge?`,
    );
  }
  for (let id = 0; id < scores.length; id++) scores[id] = (scores[id]! - highest) / temperature;
  const remove = (keep: (id: number) => boolean) => {
    for (let id = 0; id < scores.length; id++) if (!keep(id)) scores[id] = Number.NEGATIVE_INFINITY;
  };
  if (topK !== undefined && topK < scores.length) {
    const threshold = scores[descending(scores)[topK - 1]!]!;
    remove((id) => scores[id]! >= threshold);
  }
  if (topP < 1) {
    const probabilities = softmax(scores);
    const kept = new Set<number>();
    let before = 0;
    for (const id of descending(probabilities)) {
      if (kept.size > 0 && before >= topP) break;
      kept.add(id);
      before += probabilities[id]!;
    }
    remove((id) => kept.has(id));
  }
  if (minP > 0) {
    const probabilities = softmax(scores);
    const threshold = minP * maximum(probabilities);
    remove((id) => probabilities[id]! >= threshold);
  }
  return softmax(scores);
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
