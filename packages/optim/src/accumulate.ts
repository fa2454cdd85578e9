import { add, div, sub, type TensorTree, zerosLike } from "@llmeff/tensor";
import { checkNumber } from "./check.js";
import { asSchedule, type ScalarOrSchedule } from "./schedules.js";
import { type GradientTransformation, type TransformState, zerosOf } from "./transform.js";
import { mapTrees } from "./trees.js";

export interface AccumulateState {
  readonly [key: string]: TransformState;
  /** Gradients in the mean. */
  readonly micro: number;
  /** Updates of `inner` so far. */
  readonly count: number;
  readonly mean: TensorTree;
  readonly inner: TransformState;
}

/**
 * Gives `inner` the mean of every `every` gradients, and updates of 0 in between: `mean ← mean + (g − mean) / i` for the i-th of them. The same as optax's
 * `MultiSteps`. `inner` and its schedules count its own updates.
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
    init: (params) => ({ micro: 0, count: 0, mean: zerosOf(params), inner: inner.init(params) }),
    update(grads, state, params) {
      const needed = schedule(state.count);
      check(needed);
      const micro = state.micro + 1;
      const mean = mapTrees((g, old) => add(old, div(sub(g, old), micro)), grads, state.mean);
      if (micro < needed) {
        return { updates: mapTrees((g) => zerosLike(g), grads), state: { ...state, micro, mean } };
      }
      const result = inner.update(mean, state.inner, params);
      return {
        updates: result.updates,
        state: { micro: 0, count: state.count + 1, mean: zerosOf(grads), inner: result.state },
      };
    },
  };
}
