import { OptionError } from "@llmeff/tensor";
import { KvCache } from "../cache.js";
import type { ForwardOptions } from "../forward-options.js";
import type { Parameters } from "../parameters.js";
import type { Transformer } from "../transformer.js";
import { likeliest } from "./log-probs.js";
import { checkInteger, resolveRequest, type SequenceOptions } from "./options.js";
import { Scorer, type Scores } from "./scorer.js";

export interface BeamSearchOptions
  extends Pick<SequenceOptions, "maxTokens" | "stopTokens" | "vocabSize" | "prefix" | "signal">,
    Pick<ForwardOptions, "state"> {
  /** Continuations that are followed at a time, and given at most. */
  beams: number;
  /** α ≥ 0: continuations of different lengths are compared by their log-probability over length to the α; default 1, the mean of their tokens. */
  lengthPenalty?: number;
}

/** A continuation of a prompt. */
export interface Beam {
  ids: number[];
  /** Sum over its tokens. */
  logProb: number;
  /** `logProb / length^α` */
  score: number;
}

interface LiveBeam {
  ids: readonly number[];
  logProb: number;
  cache: KvCache;
}

interface Candidate {
  parent: LiveBeam;
  id: number;
  logProb: number;
}

/**
 * The likeliest continuations of a prompt, as far as following the best `beams` of each length finds them, best first. They end with a stop token,
 * or where they are as long as they may be.
 *
 * @throws {OptionError} as `generate`
 *
 * @example
 * const [best] = await beamSearch(model, params, prompt, { beams: 4, maxTokens: 50, stopTokens: [2] });
 */
export async function beamSearch(
  model: Transformer,
  params: Parameters,
  prompt: ArrayLike<number>,
  { beams, lengthPenalty = 1, state, ...options }: BeamSearchOptions,
): Promise<Beam[]> {
  checkInteger("beams", beams, 1);
  if (!(lengthPenalty >= 0 && Number.isFinite(lengthPenalty)))
    throw new OptionError(`[beamSearch] lengthPenalty must be a number ≥ 0; received ${lengthPenalty}.`);
  const { count, vocabSize, prefix, stopTokens, signal, ...request } = resolveRequest(model.config, prompt, options);
  if (count === 0) return [];
  const scorer = new Scorer(model, params, state === undefined ? {} : { state });
  const scored = (logProb: number, length: number) => logProb / length ** lengthPenalty;
  const expected = request.prompt.length + count;
  let live: LiveBeam[] = [{ ids: [], logProb: 0, cache: new KvCache(model.config, { expected }) }];
  let ended: Beam[] = [];
  try {
    for (let length = 1; live.length > 0; length++) {
      signal?.throwIfAborted();
      const inputs = live.map(({ ids, cache }) => {
        const last = ids.at(-1);
        const left = count - length + 1;
        return { ids: last === undefined ? request.prompt : [last], cache, scored: 1, vocabSize, prefix, left };
      });
      const scores = (await scorer.score(inputs)).map(({ next: [row] }) => row!);
      const goingOn: Candidate[] = [];
      for (const candidate of best(live, scores, beams * (1 + stopTokens.size))) {
        const { parent, id, logProb } = candidate;
        if (length === count || stopTokens.has(id)) {
          ended.push({ ids: [...parent.ids, id], logProb, score: scored(logProb, length) });
        } else if (goingOn.length < beams) goingOn.push(candidate);
      }
      ended = ended.sort((a, b) => b.score - a.score).slice(0, beams);
      // Longer ones are less likely, and can't count for more than this.
      const worst = ended.length < beams ? Number.NEGATIVE_INFINITY : ended.at(-1)!.score;
      live = follow(
        live,
        goingOn.filter(({ logProb }) => scored(logProb, count) > worst),
        expected,
      );
    }
    return ended;
  } finally {
    scorer.dispose();
    for (const { cache } of live) cache.dispose();
  }
}

/** The likeliest continuations by one token, of all beams together. */
function best(live: readonly LiveBeam[], scores: readonly Scores[], count: number): Candidate[] {
  const candidates = live.flatMap((parent, i) => {
    const { logits, logSumExp } = scores[i]!;
    return likeliest(logits, count).map((id) => ({ parent, id, logProb: parent.logProb + logits[id]! - logSumExp }));
  });
  return candidates.sort((a, b) => b.logProb - a.logProb).slice(0, count);
}

/** The next beams: the first child of each takes its cache, others copy it; beams without children give theirs back. */
function follow(live: readonly LiveBeam[], children: readonly Candidate[], expected: number): LiveBeam[] {
  const taken = new Set<KvCache>();
  const next: LiveBeam[] = [];
  try {
    for (const { parent, id, logProb } of children) {
      const cache = taken.has(parent.cache) ? parent.cache.clone({ expected }) : parent.cache;
      taken.add(parent.cache);
      next.push({ ids: [...parent.ids, id], logProb, cache });
    }
  } catch (error) {
    for (const { cache } of next) if (!taken.has(cache)) cache.dispose(); // copies; the others are still those of `live`
    throw error;
  }
  for (const { cache } of live) if (!taken.has(cache)) cache.dispose();
  return next;
}
