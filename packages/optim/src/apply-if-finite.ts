import {
  add,
  all,
  isFinite as finiteElements,
  greater,
  logicalAnd,
  logicalOr,
  type Tensor,
  tensorsOf,
  where,
  zeros,
  zerosLike,
} from "@llmeff/tensor";
import { checkNumber } from "./check.js";
import type { GradientTransformation, TransformState } from "./transform.js";
import { selectState } from "./transform-state.js";
import { mapTrees } from "./trees.js";

export interface ApplyIfFiniteState {
  readonly [key: string]: TransformState;
  /** Updates in a row, up to the last, whose gradients were not finite; int32 `[]`, as the host doesn't know. */
  readonly consecutiveErrors: Tensor;
  /** All updates whose gradients were not finite; int32 `[]`. */
  readonly totalErrors: Tensor;
  readonly inner: TransformState;
}

/**
 * Leaves out updates whose gradients hold a NaN or infinity: they are 0, and the arrays in the state of `inner` stay. After more than
 * `maxConsecutiveErrors` in a row they are let through, so that a run that is lost fails where it is seen. The same as optax's `apply_if_finite`.
 *
 * Nothing waits for the device: both outcomes are computed and one is chosen there. So numbers in the state of `inner`, such as counts, go
 * on in updates that are left out.
 *
 * @param maxConsecutiveErrors - a non-negative integer
 */
export function applyIfFinite(
  inner: GradientTransformation,
  maxConsecutiveErrors: number,
): GradientTransformation<ApplyIfFiniteState> {
  checkNumber(
    "applyIfFinite",
    "maxConsecutiveErrors",
    maxConsecutiveErrors,
    "a non-negative integer",
    (x) => Number.isSafeInteger(x) && x >= 0,
  );
  return {
    init(params) {
      const device = tensorsOf(params)[0]?.device;
      const counter = () => zeros([], { dtype: "int32", ...(device ? { device } : {}) });
      return { consecutiveErrors: counter(), totalErrors: counter(), inner: inner.init(params) };
    },
    update(grads, state, params) {
      const finite = tensorsOf(grads).map((g) => all(finiteElements(g)));
      const ok = finite.reduce((a, b) => logicalAnd(a, b));
      const consecutiveErrors = where(ok, zerosLike(state.consecutiveErrors), add(state.consecutiveErrors, 1));
      const totalErrors = where(ok, state.totalErrors, add(state.totalErrors, 1));
      const passes = logicalOr(ok, greater(consecutiveErrors, maxConsecutiveErrors));
      const result = inner.update(grads, state.inner, params);
      return {
        updates: mapTrees((u) => where(passes, u, zerosLike(u)), result.updates),
        state: { consecutiveErrors, totalErrors, inner: selectState(passes, result.state, state.inner) },
      };
    },
  };
}
