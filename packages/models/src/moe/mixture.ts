/** A mixture of experts as a function of its rows and weights: routing, dispatch, experts, combination. */
import {
  accumulationDType,
  add,
  linear,
  linearWide,
  mul,
  OptionError,
  ones,
  type RandomKey,
  randomUniform,
  reshape,
  scatterAdd,
  softmax,
  sub,
  type Tensor,
  topK,
  transpose,
  zeros,
} from "@llmeff/tensor";
import type { ResolvedConfig } from "../config.js";
import { type ExpertWeights, expertsForward } from "../layers/feed-forward.js";
import { combineTokens, countUp, dispatchTokens, gatherTokens, type Packing } from "./dispatch.js";
import { type Routing, type RoutingOptions, routerZLoss, routeTokens } from "./routing.js";

export interface MixtureWeights extends ExpertWeights {
  /** `[E, C]` */
  router: Tensor;
  /** `[E]`: added to the scores for the choice alone. */
  bias?: Tensor;
}

export interface MixtureOptions extends RoutingOptions {
  /** Places of each expert; default as many as there are tokens, so that none is dropped. */
  capacity?: number;
  /** Default `swiglu`. */
  feedForward?: ResolvedConfig["feedForward"];
  /** Multiplies the router's input by random numbers in `1 ± size`; default none. */
  jitter?: { size: number; key: RandomKey };
}

/** What a mixture did with its tokens. */
export interface MixtureResult {
  /** `[N, C]` */
  y: Tensor;
  routing: Routing;
  /** int32 `[N, k]`: place of each assignment among those of its expert; at least `capacity` for those dropped. */
  slots: Tensor;
  /** int32 `[]` */
  dropped: Tensor;
}

const linearConfig = (feedForward: ResolvedConfig["feedForward"]) => ({ feedForward, feedForwardBias: false });

/** The router's scores are computed in float32 or wider, whatever the model's dtype: bfloat16 would tie experts. */
function routerLogits(x: Tensor, router: Tensor, jitter: MixtureOptions["jitter"]): Tensor {
  if (jitter === undefined && x.dtype === router.dtype) return linearWide(x, router);
  const dtype = accumulationDType(x.dtype);
  const [rows, weight] = [x, router].map((y) => (y.dtype === dtype ? y : y.astype(dtype))) as [Tensor, Tensor];
  if (jitter === undefined) return linear(rows, weight);
  const noise = randomUniform(jitter.key, x.shape, { dtype, device: x.device });
  return linear(mul(rows, add(mul(noise, 2 * jitter.size), 1 - jitter.size)), weight);
}

/**
 * Token-choice mixture of experts, `y = Σ_j gate_j · expert_{e_j}(x)` over the experts that a token chose (models.md §4.1).
 *
 * The experts run over packed rows, with a `capacity` or without: they cost what is assigned to them. Nothing is read by the host.
 *
 * @param x - `[N, C]`
 * @throws {OptionError} if `capacity` is not a positive integer, or `topK` exceeds the number of experts
 */
export function mixtureOfExperts(x: Tensor, weights: MixtureWeights, options: MixtureOptions = {}): MixtureResult {
  const { feedForward = "swiglu", jitter, capacity = x.shape[0]! } = options;
  const routing = routeTokens(routerLogits(x, weights.router, jitter), options, weights.bias);
  const { slots, dropped, ...packing } = dispatchTokens(routing.indices, routing.load, capacity);
  const outputs = expertsForward(linearConfig(feedForward), weights, gatherTokens(x, packing), packing.counts);
  return { y: combineTokens(outputs, routing.gates, packing), routing, slots, dropped };
}

/** What experts that choose their tokens did. */
export interface ExpertChoiceResult {
  /** `[N, C]` */
  y: Tensor;
  /** int32 `[E, capacity]`: tokens of each expert, best first. */
  picks: Tensor;
  /** `[N, E]`: softmax over the experts. */
  scores: Tensor;
  /** int32 `[E]`: `capacity` each. */
  load: Tensor;
  /** `[]` */
  zLoss: Tensor;
}

/**
 * Expert-choice mixture (arXiv:2202.09368): each expert takes the `capacity` tokens with the largest scores, of equal ones the first, and
 * `y = Σ_e score_e · expert_e(x)` over the experts that took a token. Whether one is taken depends on later tokens: not for decoding.
 *
 * @param x - `[N, C]`
 * @throws {OptionError} if `capacity` is not in `1..N`
 */
export function expertChoice(
  x: Tensor,
  weights: Omit<MixtureWeights, "bias">,
  { capacity, feedForward = "swiglu", jitter }: Pick<MixtureOptions, "feedForward" | "jitter"> & { capacity: number },
): ExpertChoiceResult {
  const N = x.shape[0]!;
  if (!Number.isSafeInteger(capacity) || capacity <= 0 || capacity > N) {
    throw new OptionError(`[expertChoice] capacity must be an integer in 1..${N}, the tokens; received ${capacity}.`);
  }
  const logits = routerLogits(x, weights.router, jitter);
  const scores = softmax(logits);
  const E = scores.shape[1]!;
  const picks = topK(transpose(scores), capacity).indices;
  const load = mul(ones([E], { dtype: "int32", device: x.device }), capacity);
  const packing = packPicks(picks, load, N);
  const outputs = expertsForward(linearConfig(feedForward), weights, gatherTokens(x, packing), load);
  return {
    y: combineTokens(outputs, scores, packing),
    picks,
    scores,
    load,
    zLoss: routerZLoss(logits),
  };
}

/** The rows of experts that each picked as many of the `N` tokens, `picks` int32 `[E, capacity]`. */
function packPicks(picks: Tensor, counts: Tensor, N: number): Packing {
  const [E, capacity] = picks.shape as [number, number];
  const { device } = picks;
  const rows = reshape(countUp(E * capacity, device), [E, capacity]);
  const named = scatterAdd(zeros([E, N], { dtype: "int32", device }), 1, picks, add(rows, 1));
  const source = add(mul(picks, E), reshape(countUp(E, device), [E, 1]));
  return { counts, place: transpose(sub(named, 1)), source: reshape(source, [E * capacity, 1]) };
}
