/**
 * Clipping of each tensor, or each output unit, by itself.
 */
import { div, maximum, mean, minimum, mul, sqrt, square, sum, type Tensor } from "@llmeff/tensor";
import { checkKeys, checkPositive } from "./check.js";
import { type GradientTransformation, stateless } from "./transform.js";
import { mapTrees } from "./trees.js";

/**
 * Limits the root mean square of each tensor's update: `u / max(1, RMS(u) / threshold)`, `RMS(u) = √(mean u²)` (Adafactor's clipping; optax's
 * `clip_by_block_rms`).
 */
export function clipByBlockRms(threshold: number): GradientTransformation<Record<string, never>> {
  checkPositive("clipByBlockRms", "threshold", threshold);
  const clipped = (u: Tensor) => div(u, maximum(div(sqrt(mean(square(u))), threshold), 1));
  return stateless((grads) => mapTrees(clipped, grads));
}

/**
 * Adaptive gradient clipping (Brock et al. 2021, arXiv:2102.06171; optax's `adaptive_grad_clip`): each output unit's gradient is at most `clipping` times as
 * long as its weights, `g · min(1, clipping · max(‖p‖, eps) / max(‖g‖, 1e-6))`. Units are the slices of the first axis, of weights stored `[out, in, …]`;
 * tensors with less than two axes are one unit.
 *
 * @param options.eps - the least length that weights count for, so that those which start at 0 can move; default 1e-3
 */
export function adaptiveGradClip(
  clipping: number,
  options: { eps?: number } = {},
): GradientTransformation<Record<string, never>> {
  checkKeys("adaptiveGradClip", options, ["eps"]);
  const { eps = 1e-3 } = options;
  checkPositive("adaptiveGradClip", "clipping", clipping);
  checkPositive("adaptiveGradClip", "eps", eps);
  return stateless((grads, params) =>
    mapTrees(
      (g, p) => {
        const longest = mul(maximum(unitNorm(p), eps), clipping);
        return mul(g, minimum(div(longest, maximum(unitNorm(g), 1e-6)), 1));
      },
      grads,
      params,
    ),
  );
}

/** `‖x‖` of each slice of the first axis, or of a vector as a whole; to be broadcast over `x`. */
function unitNorm(x: Tensor): Tensor {
  if (x.rank < 2) return sqrt(sum(square(x)));
  return sqrt(sum(square(x), { axis: x.shape.map((_, axis) => axis).slice(1), keepDims: true }));
}
