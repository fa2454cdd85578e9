import { div, type TensorTree } from "@llmeff/tensor";
import { average } from "./adamw.js";
import { checkBeta, checkBoolean, checkKeys } from "./check.js";
import { type GradientTransformation, type TransformState, zerosOf } from "./transform.js";
import { mapTrees } from "./trees.js";

export interface EmaState {
  readonly [key: string]: TransformState;
  readonly count: number;
  readonly ema: TensorTree;
}

/**
 * Exponential moving average of the updates: `e ← decay·e + (1 − decay)·u`, which passes on `e`, or with `debias` `e / (1 − decayᵗ)`. The same as optax's
 * `ema`; for an average of the parameters see `ParameterEma`.
 *
 * @param decay - in [0, 1)
 * @param options.debias - corrects for the start at 0; default `true`
 */
export function ema(decay: number, options: { debias?: boolean } = {}): GradientTransformation<EmaState> {
  checkKeys("ema", options, ["debias"]);
  const { debias = true } = options;
  checkBeta("ema", "decay", decay);
  checkBoolean("ema", "debias", debias);
  return {
    init: (params) => ({ count: 0, ema: zerosOf(params) }),
    update(grads, state) {
      const count = state.count + 1;
      const next = mapTrees((u, old) => average(old, u, decay), grads, state.ema);
      return {
        updates: debias ? mapTrees((e) => div(e, 1 - decay ** count), next) : next,
        state: { count, ema: next },
      };
    },
  };
}
