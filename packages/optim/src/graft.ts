import { astype, div, globalNorm, greater, mul, type Tensor, where, zerosLike } from "@llmeff/tensor";
import type { GradientTransformation, TransformState } from "./transform.js";
import { mapTrees } from "./trees.js";

export interface GraftState {
  readonly [key: string]: TransformState;
  readonly magnitude: TransformState;
  readonly direction: TransformState;
}

/**
 * Grafting (Agarwal et al. 2020, arXiv:2002.11803): the direction of one transform with the length of another, for each tensor: `u = d · ‖m‖ / ‖d‖`, and 0 where
 * `d` is 0. Both see the same gradients.
 *
 * @example
 * const transform = chain(graft(scaleByAdam(), scaleBySonew({ graft: "none" })), scaleByLearningRate(1e-3));
 */
export function graft(
  magnitude: GradientTransformation,
  direction: GradientTransformation,
): GradientTransformation<GraftState> {
  return {
    init: (params) => ({ magnitude: magnitude.init(params), direction: direction.init(params) }),
    update(grads, state, params) {
      const sized = magnitude.update(grads, state.magnitude, params);
      const directed = direction.update(grads, state.direction, params);
      const updates = mapTrees((d, m) => withLengthOf(m, d), directed.updates, sized.updates);
      return { updates, state: { magnitude: sized.state, direction: directed.state } };
    },
  };
}

/** The direction with the Euclidean length of `magnitude`, as `lengthOf` measures both; 0 stays 0. */
export function withLengthOf(magnitude: Tensor, direction: Tensor, lengthOf: (x: Tensor) => Tensor = norm): Tensor {
  const length = lengthOf(direction);
  return mul(direction, where(greater(length, 0), div(lengthOf(magnitude), length), zerosLike(length)));
}

/** `‖x‖`, added up in float64, in the dtype of `x`. */
function norm(x: Tensor): Tensor {
  return astype(globalNorm([x]), x.dtype);
}
