/** A mixture of experts as a function of its rows and weights: routing, dispatch, experts, combination. */
import {
  accumulationDType,
  add,
  indexAdd,
  indexSelect,
  linear,
  mul,
  OptionError,
  ones,
  type RandomKey,
  randomUniform,
  reshape,
  softmax,
  type Tensor,
  topK,
  transpose,
  zeros,
} from "@llmeff/tensor";
import type { ResolvedConfig } from "../config.js";
import { type ExpertWeights, expertsForward } from "../layers/feed-forward.js";
import { combineTokens, dispatchTokens, gatherTokens } from "./dispatch.js";
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
  const dtype = accumulationDType(x.dtype);
  const widened = (y: Tensor) => (y.dtype === dtype ? y : y.astype(dtype));
  let input = widened(x);
  if (jitter !== undefined) {
    const noise = randomUniform(jitter.key, x.shape, { dtype, device: x.device });
    input = mul(input, add(mul(noise, 2 * jitter.size), 1 - jitter.size));
  }
  return linear(input, widened(router));
}

/**
 * Token-choice mixture of experts, `y = Σ_j gate_j · expert_{e_j}(x)` over the experts that a token chose (models.md §4.1).
 *
 * The experts run as batched products over their places: with a `capacity` they cost what their places hold; without one every expert has a place
 * for every token, which costs `E / k` times the products needed. Nothing is read by the host.
 *
 * @param x - `[N, C]`
 * @throws {OptionError} if `capacity` is not a positive integer, or `topK` exceeds the number of experts
 */
export function mixtureOfExperts(x: Tensor, weights: MixtureWeights, options: MixtureOptions = {}): MixtureResult {
  const { feedForward = "swiglu", jitter, capacity = x.shape[0]! } = options;
  const routing = routeTokens(routerLogits(x, weights.router, jitter), options, weights.bias);
  const [N, k] = routing.indices.shape as [number, number];
  const dispatch = dispatchTokens(routing.indices, routing.load, capacity);
  const outputs = expertsForward(linearConfig(feedForward), weights, gatherTokens(x, dispatch));
  return {
    y: combineTokens(outputs, routing.gates, dispatch),
    routing,
    slots: transpose(reshape(dispatch.slot, [k, N])),
    dropped: dispatch.dropped,
  };
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
  const [N, C] = x.shape as [number, number];
  if (!Number.isSafeInteger(capacity) || capacity <= 0 || capacity > N) {
    throw new OptionError(`[expertChoice] capacity must be an integer in 1..${N}, the tokens; received ${capacity}.`);
  }
  const logits = routerLogits(x, weights.router, jitter);
  const scores = softmax(logits);
  const E = scores.shape[1]!;
  const best = topK(transpose(scores), capacity);
  const tokens = reshape(best.indices, [E * capacity]);
  const rows = reshape(indexSelect(x, 0, tokens), [E, capacity, C]);
  const outputs = expertsForward(linearConfig(feedForward), weights, rows);
  const weighted = mul(outputs, reshape(best.values, [E, capacity, 1]).astype(x.dtype));
  const nothing = zeros([N, C], { dtype: x.dtype, device: x.device });
  return {
    y: indexAdd(nothing, 0, tokens, reshape(weighted, [E * capacity, C])),
    picks: best.indices,
    scores,
    load: mul(ones([E], { dtype: "int32", device: x.device }), capacity),
    zLoss: routerZLoss(logits),
  };
}
