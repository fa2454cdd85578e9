/** Scores of MRCR in the bins of length in which the published sets report them. */
import type { ScoredLength } from "./cumulative.js";
import { type MeanInterval, standardError, Z95 } from "./intervals.js";
import { clusterMeans, type LengthBin, lengthBins, powerOfTwoAbove } from "./length-bins.js";

/** Both sets begin at 4k tokens and double. */
const SHORTEST = 4096;
const OPENAI_LONGEST = 2 ** 20;
const GDM_LONGEST = 2 ** 23;
/** Upper ends of the buckets that `upTo128k` averages. */
const UP_TO_128K = [8192, 16_384, 32_768, 65_536, 131_072];

export interface MrcrBuckets {
  /** Bins with samples, ascending. */
  bins: LengthBin[];
  /** Samples that are shorter than the first bin or longer than the last. */
  outside: number;
}

export interface GdmMrcrBuckets extends MrcrBuckets {
  /**
   * `upto_128K`: as if the five buckets up to 131,072 tokens had equally many samples, the mean of their means, with the normal 95 % interval of a
   * stratified mean, `z·√(Σ_b sd²_b/n_b) / 5`; no interval where a bucket has a single cluster. No mean where one is empty: it could not be
   * compared.
   */
  upTo128k: MeanInterval;
}

/**
 * OpenAI-MRCR's eight bins, [4096, 8192], (8192, 16384] … (524288, 1048576].
 *
 * @param samples - `tokens`: of prompt and right answer together; `score`: by OpenAI's scorer
 */
export function openAiMrcrBins(samples: readonly ScoredLength[]): MrcrBuckets {
  // The first bin alone holds its lower end.
  const shifted = samples.map((sample) => (sample.tokens === SHORTEST ? { ...sample, tokens: SHORTEST + 1 } : sample));
  return within(shifted, OPENAI_LONGEST);
}

/**
 * MRCR v2's buckets, (4096, 8192], (8192, 16384] … (4194304, 8388608].
 *
 * @param samples - `tokens`: of the prompt; `score`: by eval_hub's scorer
 */
export function gdmMrcrBuckets(samples: readonly ScoredLength[]): GdmMrcrBuckets {
  const strata = UP_TO_128K.map((high) =>
    clusterMeans(samples.filter(({ tokens }) => tokens > SHORTEST && powerOfTwoAbove(tokens) === high)),
  );
  return { ...within(samples, GDM_LONGEST), upTo128k: stratifiedMean(strata) };
}

function within(samples: readonly ScoredLength[], longest: number): MrcrBuckets {
  const inside = samples.filter(({ tokens }) => tokens > SHORTEST && tokens <= longest);
  return { bins: lengthBins(inside), outside: samples.length - inside.length };
}

function stratifiedMean(strata: readonly (readonly number[])[]): MeanInterval {
  const n = strata.reduce((sum, { length }) => sum + length, 0);
  if (strata.some(({ length }) => length === 0)) return { n, mean: null, low: null, high: null };
  const means = strata.map((scores) => scores.reduce((sum, score) => sum + score, 0) / scores.length);
  const mean = means.reduce((sum, value) => sum + value, 0) / strata.length;
  if (strata.some(({ length }) => length === 1)) return { n, mean, low: null, high: null };
  const half = (Z95 * Math.hypot(...strata.map((scores, i) => standardError(scores, means[i]!)))) / strata.length;
  return { n, mean, low: Math.max(0, mean - half), high: Math.min(1, mean + half) };
}
