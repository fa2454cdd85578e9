import {
  add,
  clone,
  div,
  equal,
  sub,
  type Tensor,
  type TensorTree,
  tensorsOf,
  where,
  zeros,
  zerosLike,
} from "@llmeff/tensor";
import { checkNumber } from "./check.js";
import { asSchedule, type ScalarOrSchedule } from "./schedules.js";
import { type GradientTransformation, type TransformState, zerosOf } from "./transform.js";
import { selectState } from "./transform-state.js";
import { mapTrees } from "./trees.js";

export interface AccumulateState {
  readonly [key: string]: TransformState;
  /** Gradients in the mean, those that were skipped included. */
  readonly micro: number;
  /** Updates of `inner` so far. */
  readonly count: number;
  /** All gradients so far. */
  readonly seen: number;
  /** `seen` after the last gradient up to which none of its mean was skipped; int32 `[]`, as the host doesn't know. */
  readonly unbroken: Tensor;
  readonly mean: TensorTree;
  readonly inner: TransformState;
}

/**
 * Gives `inner` the mean of every `every` gradients, and updates of 0 in between: `mean ← mean + (g − mean) / i` for the i-th of them. The same as optax's
 * `MultiSteps`. `inner` and its schedules count its own updates.
 *
 * Where an optimizer skips a gradient that isn't finite (`maxGradNorm`, `nonFinite: "skip"`), or `applyIfFinite` around this does, all `every` gradients with
 * it are dropped, as one batch of their size would be: the update is 0, the arrays in the state of `inner` stay and its counts go on. That is known of all
 * parameters together, so this isn't for the rules of `TransformOptimizer` that are `batched`.
 *
 * @param every - gradients to an update: a number, or a function of the updates so far
 * @throws {OptionError} unless `every` is a positive integer
 *
 * @example
 * const transform = accumulate(adamw(1e-3), 4); // a batch four times as large
 */
export function accumulate(
  inner: GradientTransformation,
  every: ScalarOrSchedule,
): GradientTransformation<AccumulateState> {
  const check = (value: number) =>
    checkNumber("accumulate", "every", value, "a positive integer", (x) => Number.isSafeInteger(x) && x > 0);
  if (typeof every === "number") check(every);
  const schedule = asSchedule(every);
  return {
    init(params) {
      const device = tensorsOf(params)[0]?.device;
      const unbroken = zeros([], { dtype: "int32", ...(device ? { device } : {}) });
      return { micro: 0, count: 0, seen: 0, unbroken, mean: zerosOf(params), inner: inner.init(params) };
    },
    update(grads, state, params) {
      const needed = schedule(state.count);
      check(needed);
      const [micro, seen] = [state.micro + 1, state.seen + 1];
      // A gradient that was skipped left the arrays as they were, also the mean of an earlier update, so the first one overwrites it.
      const isFirst = micro === 1;
      const mean = isFirst
        ? mapTrees((g) => clone(g), grads)
        : mapTrees((g, old) => add(old, div(sub(g, old), micro)), grads, state.mean);
      // Numbers only grow, so one that was left behind is never that of the gradient before.
      const whole = isFirst ? undefined : equal(state.unbroken, state.seen);
      const unbroken = whole
        ? where(whole, add(state.unbroken, 1), state.unbroken)
        : add(zerosLike(state.unbroken), seen);
      if (micro < needed) {
        return { updates: mapTrees((g) => zerosLike(g), grads), state: { ...state, micro, seen, unbroken, mean } };
      }
      const result = inner.update(mean, state.inner, params);
      return {
        updates: whole ? mapTrees((u) => where(whole, u, zerosLike(u)), result.updates) : result.updates,
        state: {
          micro: 0,
          count: state.count + 1,
          seen,
          unbroken,
          mean: zerosOf(grads),
          inner: whole ? selectState(whole, result.state, state.inner) : result.state,
        },
      };
    },
  };
}
