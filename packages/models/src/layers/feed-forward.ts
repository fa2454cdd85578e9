/** The feed-forward part of a block: gated or plain, of one matrix each or of all experts at once. */
import {
  gelu,
  groupedMatmul,
  groupedMatmulMany,
  linear,
  linearAdd,
  linearMany,
  marked,
  mul,
  relu,
  square,
  swiglu,
  swigluLinear,
  type Tensor,
  transpose,
} from "@llmeff/tensor";
import { isGated, type ResolvedConfig } from "../config.js";
import type { Lookup } from "./lookup.js";
import type { Along } from "./norm.js";

type FeedForwardConfig = Pick<ResolvedConfig, "feedForward" | "feedForwardBias">;

function gated({ feedForward }: FeedForwardConfig, gate: Tensor, up: Tensor): Tensor {
  return feedForward === "swiglu" ? swiglu(gate, up) : mul(gelu(gate), up);
}

function activated({ feedForward }: FeedForwardConfig, x: Tensor): Tensor {
  if (feedForward === "relu2") return square(relu(x));
  return gelu(x, { approximate: feedForward === "gelu" ? "tanh" : "none" });
}

/** Whether products of the feed-forward part may take something along. */
export function takesAlong({ feedForward, feedForwardBias }: FeedForwardConfig): boolean {
  return feedForward === "swiglu" && !feedForwardBias;
}

/** What the widest activations of a feed-forward part are computed under, for checkpoints to name them. */
export const hiddenMark = "feedForward.hidden";

/** `down(act(gate x) ∘ up x)` or `down(act(up x))`; with `along`, of the norm of `x` and added to the stream. */
export function feedForward(config: FeedForwardConfig, parameter: Lookup, x: Tensor, along?: Along): Tensor {
  const weight = parameter("down_proj.weight");
  const inner = marked(hiddenMark, () => hidden(config, parameter, x, along));
  if (along !== undefined) return linearAdd(along.residual, inner, weight);
  return linear(inner, weight, config.feedForwardBias ? parameter("down_proj.bias") : undefined);
}

function hidden(config: FeedForwardConfig, parameter: Lookup, x: Tensor, along: Along | undefined): Tensor {
  const weight = (name: string) => parameter(`${name}_proj.weight`);
  const bias = (name: string) => (config.feedForwardBias ? parameter(`${name}_proj.bias`) : undefined);
  if (takesAlong(config)) return swigluLinear(x, weight("gate"), weight("up"), { norm: along?.norm });
  if (isGated(config)) {
    const [gate, up] = config.feedForwardBias
      ? [linear(x, weight("gate"), bias("gate")), linear(x, weight("up"), bias("up"))]
      : linearMany(x, [weight("gate"), weight("up")] as const);
    return gated(config, gate, up);
  }
  if (config.feedForward === "relu2") return square(linear(x, weight("up"), bias("up"), { activation: "relu" }));
  return linear(x, weight("up"), bias("up"), { activation: config.feedForward === "gelu" ? "gelu" : "geluErf" });
}

/** The matrices of all experts: `[E, F, C]`, and `[E, C, F]` of `down`. Without `gate` they are plain. */
export interface ExpertWeights {
  gate?: Tensor;
  up: Tensor;
  down: Tensor;
}

/**
 * Every expert on its own rows, which lie packed: the first `counts[0]` belong to expert 0, and so on.
 *
 * @param x - `[R, C]`
 * @param counts - int32 `[E]`
 * @returns `[R, C]`; zeros in rows of no expert
 */
export function expertsForward(
  config: FeedForwardConfig,
  { gate, up, down }: ExpertWeights,
  x: Tensor,
  counts: Tensor,
): Tensor {
  const turned = (weight: Tensor) => transpose(weight, 1, 2);
  const hidden = () => {
    if (gate === undefined) return activated(config, groupedMatmul(x, turned(up), counts));
    return gated(config, ...groupedMatmulMany(x, [turned(gate), turned(up)] as const, counts));
  };
  return groupedMatmul(marked(hiddenMark, hidden), turned(down), counts);
}
