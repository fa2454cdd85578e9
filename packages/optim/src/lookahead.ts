import { add, clone, mul, sub, type TensorTree } from "@llmeff/tensor";
import { checkKeys, checkNumber } from "./check.js";
import type { GradientTransformation, TransformState } from "./transform.js";
import { mapTrees } from "./trees.js";

export interface LookaheadState {
  readonly [key: string]: TransformState;
  /** Updates since the slow weights moved last. */
  readonly sinceSync: number;
  readonly slow: TensorTree;
  readonly inner: TransformState;
}

/**
 * Lookahead (Zhang et al. 2019, arXiv:1907.08610): the parameters are fast weights `θ`, which `inner` steps; every `syncPeriod` updates the slow weights
 * move towards them, `φ ← φ + slowStepSize·(θ − φ)`, and the fast ones start again from there, `θ ← φ`. optax's `lookahead`, with the slow weights in the
 * state; they are the ones to evaluate, and equal the parameters right after a synchronization.
 *
 * @param inner - a whole optimizer, whose updates are added to the parameters
 * @param options.syncPeriod - default 5
 * @param options.slowStepSize - in (0, 1]; default 0.5
 */
export function lookahead(
  inner: GradientTransformation,
  options: { syncPeriod?: number; slowStepSize?: number } = {},
): GradientTransformation<LookaheadState> {
  checkKeys("lookahead", options, ["syncPeriod", "slowStepSize"]);
  const { syncPeriod = 5, slowStepSize = 0.5 } = options;
  checkNumber("lookahead", "syncPeriod", syncPeriod, "a positive integer", (x) => Number.isSafeInteger(x) && x > 0);
  checkNumber("lookahead", "slowStepSize", slowStepSize, "a number in (0, 1]", (x) => x > 0 && x <= 1);
  return {
    init: (params) => ({ sinceSync: 0, slow: mapTrees((p) => clone(p), params), inner: inner.init(params) }),
    update(grads, state, params) {
      const { updates, state: next } = inner.update(grads, state.inner, params);
      const sinceSync = state.sinceSync + 1;
      if (sinceSync < syncPeriod) return { updates, state: { sinceSync, slow: state.slow, inner: next } };
      const slow = mapTrees(
        (u, p, old) => add(old, mul(sub(add(p, u), old), slowStepSize)),
        updates,
        params,
        state.slow,
      );
      return {
        updates: mapTrees((_u, now, p) => sub(now, p), updates, slow, params),
        state: { sinceSync: 0, slow, inner: next },
      };
    },
  };
}
