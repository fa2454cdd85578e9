/** A running average of the parameters as a part of a run: updated after each step, and in its checkpoints. */
import { ParameterEma } from "@llmeff/optim";
import { OptionError, type Tensor } from "@llmeff/tensor";
import type { ModelState } from "./options.js";

/** Begins the names of averages in a checkpoint's model file. */
const prefix = "average.";

export interface AveragedWeights extends ModelState, Disposable {
  /** By the parameters' names: what to evaluate, and to keep in the place of the parameters. In float32 at least. */
  readonly average: Readonly<Record<string, Tensor>>;
}

/**
 * `e ← decay · e + (1 − decay) · p` after each step that changed the parameters, from the parameters as they are now.
 *
 * @param options.decay - in [0, 1); default 0.999
 * @throws {OptionError} for a decay outside its domain
 *
 * @example
 * const averaged = averagedWeights(params, { decay: 0.999 });
 * train({ params, modelState: averaged, evaluate: () => evaluateLoss(model, averaged.average, validation), … });
 */
export function averagedWeights(
  params: Readonly<Record<string, Tensor>>,
  options: { decay?: number } = {},
): AveragedWeights {
  const ema = new ParameterEma(params, options);
  const average = ema.stateDict().tensors;
  return {
    average,
    tensors: Object.fromEntries(Object.entries(average).map(([name, tensor]) => [prefix + name, tensor])),
    update: () => ema.update(),
    [Symbol.dispose]: () => ema.dispose(),
  };
}

/** Of a checkpoint's tensors those that are no averages, and the averages by the parameters' names; undefined if there are none. */
export function splitAverages(tensors: Readonly<Record<string, Tensor>>): {
  params: Record<string, Tensor>;
  average: Record<string, Tensor> | undefined;
} {
  const entries = Object.entries(tensors);
  const averages = entries.filter(([name]) => name.startsWith(prefix));
  return {
    params: Object.fromEntries(entries.filter(([name]) => !name.startsWith(prefix))),
    average:
      averages.length === 0
        ? undefined
        : Object.fromEntries(averages.map(([name, tensor]) => [name.slice(prefix.length), tensor])),
  };
}

/** Several states as one. @throws {OptionError} if two have a tensor of one name */
export function modelStates(...states: readonly ModelState[]): ModelState {
  const names = states.flatMap(({ tensors }) => Object.keys(tensors));
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    throw new OptionError(`[modelStates] states must have names of their own; received "${twice}" twice.`);
  return {
    tensors: Object.assign({}, ...states.map(({ tensors }) => tensors)),
    update(collected, step) {
      for (const state of states) state.update(collected, step);
    },
  };
}
