/** Which experts a token goes to, and with which weight (models.md §4.1, §4.3). */
import {
  add,
  div,
  gather,
  greater,
  logSumExp,
  mean,
  mul,
  OptionError,
  oneHot,
  reshape,
  sigmoid,
  softmax,
  square,
  sum,
  type Tensor,
  topK,
  unsqueeze,
  where,
} from "@llmeff/tensor";
import type { MixtureOfExperts } from "../experts-config.js";
import { histogram } from "./histogram.js";

export type RoutingOptions = Pick<MixtureOfExperts, "topK" | "score" | "normTopK" | "routedScale" | "groups">;

/** The choices of `N` tokens among `E` experts, and what balances them. */
export interface Routing {
  /** int32 `[N, k]`: experts of each token, best first. */
  indices: Tensor;
  /** `[N, k]`: weights of their results. */
  gates: Tensor;
  /** `[N, E]`: softmax or sigmoid of the logits. */
  scores: Tensor;
  /** int32 `[E]`: tokens that chose each expert, before any is dropped. */
  load: Tensor;
  /** `[]`: `E · Σ_e f_e P_e`, with `f` the share of assignments and `P` the mean score; 1 when balanced. The choices have no gradient. */
  aux: Tensor;
  /** `[]`: mean squared log-sum-exp of the logits. */
  zLoss: Tensor;
}

/** Scores with −∞ for the experts of all but the best groups; a group is as good as the sum of its two best. */
function withinGroups(scores: Tensor, { count, kept }: { count: number; kept: number }): Tensor {
  const [N, E] = scores.shape as [number, number];
  const size = E / count;
  const grouped = reshape(scores, [N, count, size]);
  const strength = sum(topK(grouped, Math.min(2, size)).values, { axis: -1 });
  const eligible = greater(sum(oneHot(topK(strength, kept).indices, count), { axis: 1 }), 0);
  return reshape(where(unsqueeze(eligible, -1), grouped, Number.NEGATIVE_INFINITY), [N, E]);
}

/**
 * Token-choice routing: each token goes to the `topK` experts with the largest `score + bias`, of equal ones the first; its gates are their
 * scores, divided by their sum if `normTopK`, times `routedScale`.
 *
 * @param logits - `[N, E]`, float32 or float64
 * @param bias - `[E]`, added for the choice only
 * @throws {OptionError} if there are fewer experts than `topK`
 * @see arXiv:2101.03961 (aux), arXiv:2202.08906 (zLoss), arXiv:2412.19437 (sigmoid, bias, groups)
 */
export function routeTokens(logits: Tensor, options: RoutingOptions = {}, bias?: Tensor): Routing {
  const { topK: k = 2, score = "softmax", normTopK = true, routedScale = 1, groups } = options;
  const [N, E] = logits.shape as [number, number];
  if (k > E) throw new OptionError(`[routeTokens] topK must be at most ${E}, the number of experts; received ${k}.`);
  const scores = score === "softmax" ? softmax(logits) : sigmoid(logits);
  const biased = bias === undefined ? scores : add(scores, bias);
  const { indices } = topK(groups === undefined ? biased : withinGroups(biased, groups), k);
  let gates = gather(scores, -1, indices);
  if (normTopK) gates = div(gates, sum(gates, { axis: -1, keepDims: true }));
  if (routedScale !== 1) gates = mul(gates, routedScale);
  const shares = score === "softmax" ? scores : div(scores, sum(scores, { axis: -1, keepDims: true }));
  const load = histogram(indices, E);
  const aux = mul(sum(mul(load.astype(scores.dtype), mean(shares, { axis: 0 }))), E / (N * k));
  return { indices, gates, scores, load, aux, zLoss: routerZLoss(logits) };
}

/** Mean squared log-sum-exp of a router's logits `[N, E]`, which keeps them small (arXiv:2202.08906 eq. 5). */
export function routerZLoss(logits: Tensor): Tensor {
  return mean(square(logSumExp(logits, { axis: -1 })));
}
