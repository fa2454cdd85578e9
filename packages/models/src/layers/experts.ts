/** A block's mixture of experts: the parameters of its names, and the shared expert that every token goes to. */
import { add, type RandomKey, reshape, type Tensor } from "@llmeff/tensor";
import { isGated, type ResolvedConfig } from "../config.js";
import type { ResolvedExperts } from "../experts-config.js";
import { expertCapacity } from "../moe/dispatch.js";
import { expertChoice, type MixtureWeights, mixtureOfExperts } from "../moe/mixture.js";
import { feedForward } from "./feed-forward.js";
import { below, type Lookup } from "./lookup.js";

/** What a layer's router did, for losses and metrics. */
export interface RouterReport {
  /** int32 `[E]` */
  load: Tensor;
  /** `[]`, absent where experts choose: their load is balanced. */
  aux?: Tensor;
  /** `[]` */
  zLoss: Tensor;
  /** int32 `[]`, absent where experts choose. */
  dropped?: Tensor;
}

interface RoutingContext {
  /** Of the choices. */
  bias: Tensor | undefined;
  /** Of the jitter. */
  key: RandomKey | undefined;
  /** Whether every assignment gets a place, whatever the capacity that the configuration has for training. */
  dropless: boolean;
}

/**
 * The mixture in the place of a feed-forward layer.
 *
 * @param parameter - those below `mlp`
 * @param x - `[B, T, C]`
 */
export function expertsLayer(
  config: ResolvedConfig,
  experts: ResolvedExperts,
  parameter: Lookup,
  x: Tensor,
  { bias, key, dropless }: RoutingContext,
): { y: Tensor; report: RouterReport } {
  const [B, T, C] = x.shape as [number, number, number];
  const rows = reshape(x, [B * T, C]);
  const weights: MixtureWeights = {
    router: parameter("router.weight"),
    ...(isGated(config) ? { gate: parameter("experts.gate_proj") } : {}),
    up: parameter("experts.up_proj"),
    down: parameter("experts.down_proj"),
    ...(bias === undefined ? {} : { bias }),
  };
  const { capacityFactor, ...others } = experts;
  const { y, report } = routed(config, dropless ? others : experts, weights, rows, key);
  const shared =
    experts.sharedDim > 0 ? feedForward(unbiased(config), below(parameter, "shared_expert"), rows) : undefined;
  return { y: reshape(shared === undefined ? y : add(y, shared), [B, T, C]), report };
}

const unbiased = (config: ResolvedConfig) => ({ feedForward: config.feedForward, feedForwardBias: false });

function routed(
  { feedForward: kind }: ResolvedConfig,
  experts: ResolvedExperts,
  weights: MixtureWeights,
  rows: Tensor,
  key: RandomKey | undefined,
): { y: Tensor; report: RouterReport } {
  const { numExperts, topK, capacityFactor, jitter: size, ...options } = experts;
  const jitter = size > 0 && key !== undefined ? { jitter: { size, key } } : {};
  const N = rows.shape[0]!;
  if (experts.choice === "expert") {
    const capacity = expertCapacity(N, topK, numExperts, capacityFactor ?? 1);
    const { y, load, zLoss } = expertChoice(rows, weights, { capacity, feedForward: kind, ...jitter });
    return { y, report: { load, zLoss } };
  }
  const capacity = expertCapacity(N, topK, numExperts, capacityFactor);
  const { y, routing, dropped } = mixtureOfExperts(rows, weights, {
    ...options,
    topK,
    capacity,
    feedForward: kind,
    ...jitter,
  });
  const { load, aux, zLoss } = routing;
  return { y, report: { load, aux, zLoss, dropped } };
}
