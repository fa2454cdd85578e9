import { checkNumber } from "./check.js";
import { asSchedule, type ScalarOrSchedule } from "./schedules.js";
import type { GradientTransformation, TransformState } from "./transform.js";

/** Hyper-parameters in the state: a checkpoint holds them, and assigning a copy of the state with others changes them. */
export interface InjectedState {
  readonly [key: string]: TransformState;
  /** Updates so far. */
  readonly count: number;
  /** The values that the last update used; before the first, those that it will use. */
  readonly hyperparams: { readonly [name: string]: number };
  readonly inner: TransformState;
}

/**
 * Puts hyper-parameters into the state. Those given as numbers are read from there at each update, so that they can be changed while training and are
 * part of checkpoints; those given as schedules are worked out from the count, and are in the state to be looked at. The same as
 * optax's `inject_hyperparams`.
 *
 * @param transformFor - the transform for values of the hyper-parameters; called for each update. Its state's form must not depend on them.
 * @throws {OptionError} for a value that is not a finite number
 *
 * @example
 * const transform = injectHyperparams(
 *   ({ learningRate, beta1 }) => chain(scaleByAdam({ beta1 }), scaleByLearningRate(learningRate)),
 *   { learningRate: cosine(1e-3, 1000), beta1: 0.9 },
 * );
 * let state = transform.init(params);
 * state = { ...state, hyperparams: { ...state.hyperparams, beta1: 0.95 } };
 */
export function injectHyperparams<K extends string>(
  transformFor: (hyperparams: Readonly<Record<K, number>>) => GradientTransformation,
  hyperparams: Readonly<Record<K, ScalarOrSchedule>>,
): GradientTransformation<InjectedState> {
  const entries = Object.entries<ScalarOrSchedule>(hyperparams);
  /** Those of an update: scheduled ones at `count`, the others by `constant`. */
  const valuesAt = (count: number, constant: (name: string, given: number) => unknown): Record<K, number> => {
    const values = entries.map(([name, given]) => {
      const value = typeof given === "function" ? asSchedule(given)(count) : constant(name, given);
      checkNumber(`injectHyperparams] [update ${count}`, name, value, "a finite number", Number.isFinite);
      return [name, value];
    });
    return Object.fromEntries(values);
  };
  return {
    init(params) {
      const values = valuesAt(0, (_name, given) => given);
      return { count: 0, hyperparams: values, inner: transformFor(values).init(params) };
    },
    update(grads, state, params) {
      const values = valuesAt(state.count, (name) => state.hyperparams[name]);
      const { updates, state: inner } = transformFor(values).update(grads, state.inner, params);
      return { updates, state: { count: state.count + 1, hyperparams: values, inner } };
    },
  };
}
