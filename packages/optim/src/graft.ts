import { div, greater, mul, sqrt, square, sum, type Tensor, where, zerosLike } from "@llmeff/tensor";
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
  const norm = (x: Tensor) => sqrt(sum(square(x)));
  return {
    init: (params) => ({ magnitude: magnitude.init(params), direction: direction.init(params) }),
    update(grads, state, params) {
      const sized = magnitude.update(grads, state.magnitude, params);
      const directed = direction.update(grads, state.direction, params);
      const updates = mapTrees(
        (d, m) => {
          const length = norm(d);
          return mul(d, where(greater(length, 0), div(norm(m), length), zerosLike(length)));
        },
        directed.updates,
        sized.updates,
      );
      return { updates, state: { magnitude: sized.state, direction: directed.state } };
    },
  };
}
