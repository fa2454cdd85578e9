/** What mixture of experts stands in the place of the feed-forward layers (models.md §4). */
import {
  checkChoice,
  checkCount,
  checkFlag,
  checkKeys,
  checkNonNegative,
  checkObject,
  checkPositive,
  checkPositiveNumber,
  refuse,
} from "./config-checks.js";

/**
 * A mixture of experts. The defaults are Mixtral's. Switch is `topK: 1, normTopK: false`; DeepSeek-V3 is
 * `score: "sigmoid", routerBias: true, routedScale: 2.5, groups: { count: 8, kept: 4 }, denseLayers: 3` with a shared expert.
 */
export interface MixtureOfExperts {
  numExperts: number;
  /** Experts of each token; with `choice: "expert"` their mean number at `capacityFactor` 1. Default 2. */
  topK?: number;
  /** Width of an expert; default `ffnDim`. */
  expertDim?: number;
  /** Width of an expert that every token goes to, with gate 1; default 0, none. */
  sharedDim?: number;
  /** First layers that stay dense; default 0. */
  denseLayers?: number;
  /** Tokens choose experts (default), or experts choose tokens, which looks ahead in a sequence. */
  choice?: "token" | "expert";
  /** What the router's logits become; default softmax over all experts. */
  score?: "softmax" | "sigmoid";
  /** Divides a token's gates by their sum; default true. */
  normTopK?: boolean;
  /** Multiplies the gates; default 1. */
  routedScale?: number;
  /** Tokens choose only among experts of the `kept` best of `count` groups; default all experts. */
  groups?: { count: number; kept: number };
  /**
   * Places of an expert over its fair share of assignments, those beyond are dropped; default none are: dropless. With a cache, as in generation,
   * nothing is dropped in any case.
   */
  capacityFactor?: number;
  /** Weight of the balancing loss `E · Σ f P`, summed over the layers; default 0. */
  auxCoef?: number;
  /** Weight of the mean squared log-sum-exp of the router's logits; default 0. */
  zCoef?: number;
  /** Multiplies the router's input by random numbers in `1 ± jitter` where a forward pass is given a key for them; default 0. */
  jitter?: number;
  /** The choice (not the gates) adds a bias that balances without a loss: state, see `Transformer.initState`; default false. */
  routerBias?: boolean;
}

export type ResolvedExperts = Required<Omit<MixtureOfExperts, "groups" | "capacityFactor">> &
  Pick<MixtureOfExperts, "groups" | "capacityFactor">;

const keys = Object.keys({
  numExperts: true,
  topK: true,
  expertDim: true,
  sharedDim: true,
  denseLayers: true,
  choice: true,
  score: true,
  normTopK: true,
  routedScale: true,
  groups: true,
  capacityFactor: true,
  auxCoef: true,
  zCoef: true,
  jitter: true,
  routerBias: true,
} satisfies Record<keyof MixtureOfExperts, true>);

function checkGroups(groups: { count: number; kept: number }, numExperts: number, topK: number): void {
  checkObject("experts.groups", groups);
  checkKeys("experts.groups", groups, ["count", "kept"]);
  const { count, kept } = groups;
  checkPositive("experts.groups.count", count);
  checkPositive("experts.groups.kept", kept);
  if (numExperts % count !== 0) refuse("experts.groups.count", `a divisor of numExperts (${numExperts})`, count);
  if (kept > count) refuse("experts.groups.kept", `at most count (${count})`, kept);
  const eligible = kept * (numExperts / count);
  if (topK > eligible) {
    refuse("experts.topK", `at most ${eligible}, the experts of ${kept} of ${count} groups`, topK);
  }
}

/** Fills in the defaults. @throws {OptionError} naming the field that doesn't fit */
export function resolveExperts(experts: MixtureOfExperts, ffnDim: number): ResolvedExperts {
  checkObject("experts", experts);
  checkKeys("experts", experts, keys);
  const {
    numExperts,
    topK = Math.min(2, numExperts),
    expertDim = ffnDim,
    sharedDim = 0,
    denseLayers = 0,
    choice = "token",
    score = "softmax",
    normTopK = true,
    routedScale = 1,
    groups,
    capacityFactor,
    auxCoef = 0,
    zCoef = 0,
    jitter = 0,
    routerBias = false,
  } = experts;
  checkPositive("experts.numExperts", numExperts);
  checkPositive("experts.topK", topK);
  if (topK > numExperts) refuse("experts.topK", `at most numExperts (${numExperts})`, topK);
  checkPositive("experts.expertDim", expertDim);
  checkCount("experts.sharedDim", sharedDim);
  checkCount("experts.denseLayers", denseLayers);
  checkChoice("experts.choice", choice, ["token", "expert"]);
  checkChoice("experts.score", score, ["softmax", "sigmoid"]);
  checkFlag("experts.normTopK", normTopK);
  checkFlag("experts.routerBias", routerBias);
  checkPositiveNumber("experts.routedScale", routedScale);
  if (groups !== undefined) checkGroups(groups, numExperts, topK);
  if (capacityFactor !== undefined) checkPositiveNumber("experts.capacityFactor", capacityFactor);
  for (const [name, value] of Object.entries({ auxCoef, zCoef, jitter })) checkNonNegative(`experts.${name}`, value);
  if (jitter >= 1) refuse("experts.jitter", "less than 1, so that no input changes its sign", jitter);
  if (choice === "expert") {
    const unused = { groups, routerBias: routerBias || undefined, score: score === "softmax" ? undefined : score };
    for (const [name, value] of Object.entries(unused)) {
      if (value !== undefined)
        refuse(`experts.${name}`, 'left out with choice: "expert", which has no use for it', value);
    }
  }
  return {
    numExperts,
    topK,
    expertDim,
    sharedDim,
    denseLayers,
    choice,
    score,
    normTopK,
    routedScale,
    auxCoef,
    zCoef,
    jitter,
    routerBias,
    ...(groups === undefined ? {} : { groups }),
    ...(capacityFactor === undefined ? {} : { capacityFactor }),
  };
}
