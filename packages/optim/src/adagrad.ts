/**
 * Adagrad: a learning rate for each coordinate that falls with the sum of its squared gradients.
 *
 * `v ← v + g²`; `p ← p − lr / (1 + (t − 1)·lrDecay) · g / (√v + eps)`.
 *
 * Duchi, Hazan & Singer 2011; semantics of PyTorch. For convex problems and sparse features; in deep networks the sum never forgets, which `RMSprop`
 * and Adam mend.
 */
import { UpdateRule } from "@llmeff/native";
import { add, div, mul, sqrt, type TensorTree } from "@llmeff/tensor";
import { checkDecay, checkKeys, checkNotNegative, withDefaults } from "./check.js";
import { type DecayHyper, type DecayMask, decayFactors, withDecay } from "./decay.js";
import { ElementwiseOptimizer, type ElementwiseRule } from "./elementwise.js";
import type { CommonOptions } from "./optimizer-types.js";
import { asSchedule, type ScalarOrSchedule } from "./schedules.js";
import type { Parameter } from "./storage.js";
import { type GradientTransformation, type TransformState, zerosOf } from "./transform.js";
import { mapTrees } from "./trees.js";

/** Hyper-parameters of Adagrad; the defaults are PyTorch's: `weightDecay` 0, `decoupled` false. */
export interface AdagradHyper extends DecayHyper {
  /** Default 1e-2. */
  learningRate: ScalarOrSchedule;
  /** The rate of step t is divided by `1 + (t − 1)·lrDecay`. Default 0. */
  lrDecay: number;
  /** Added to the root of the sum. Default 1e-10. */
  eps: number;
}
export interface AdagradOptions extends Partial<AdagradHyper>, CommonOptions<AdagradHyper> {}

const adagradDefaults = { lrDecay: 0, eps: 1e-10, weightDecay: 0, decoupled: false } as const;

function checkAdagrad(where: string, hyper: Omit<AdagradHyper, "learningRate">): void {
  checkNotNegative(where, "lrDecay", hyper.lrDecay);
  checkNotNegative(where, "eps", hyper.eps);
  checkDecay(where, hyper);
}

const adagradRule: ElementwiseRule<AdagradHyper> = {
  kind: "adagrad",
  name: "Adagrad",
  defaults: { learningRate: 1e-2, ...adagradDefaults },
  check: checkAdagrad,
  step(hyper, step) {
    const rate = hyper.learningRate / (1 + (step - 1) * hyper.lrDecay);
    return { rule: UpdateRule.adagrad, states: ["v"], factors: [...decayFactors(rate, hyper), hyper.eps, rate] };
  },
  stateDomains: { notNegative: ["v"] },
};

/**
 * Adagrad in one fused kernel: one number of state and 20 bytes of memory traffic a float32 parameter.
 *
 * @param params - tensors, or typed arrays, which are changed in place
 * @throws {OptionError} for a hyper-parameter outside its domain or an unknown option
 *
 * @example
 * const optimizer = new Adagrad(params, { learningRate: 0.05 });
 */
export class Adagrad<P extends Parameter> extends ElementwiseOptimizer<P, AdagradHyper> {
  constructor(params: Readonly<Record<string, P>>, options: AdagradOptions = {}) {
    super(adagradRule, params, options);
  }
}

/** `g / (√v + eps)`, with `v` the sum of all squared gradients. */
export function scaleByAdagrad(options: { eps?: number } = {}): GradientTransformation<{ v: TensorTree }> {
  checkKeys("scaleByAdagrad", options, ["eps"]);
  const { eps = adagradDefaults.eps } = options;
  checkNotNegative("scaleByAdagrad", "eps", eps);
  return {
    init: (params) => ({ v: zerosOf(params) }),
    update(grads, state) {
      const v = mapTrees((g, old) => add(old, mul(g, g)), grads, state.v);
      return { updates: mapTrees((g, sum) => div(g, add(sqrt(sum), eps)), grads, v), state: { v } };
    },
  };
}

/**
 * Adagrad as a chain of transforms.
 *
 * @example
 * const transform = adagrad(0.05, { lrDecay: 1e-3 });
 */
export function adagrad(
  learningRate: ScalarOrSchedule,
  options: Partial<Omit<AdagradHyper, "learningRate">> & DecayMask = {},
): GradientTransformation<readonly TransformState[]> {
  checkKeys("adagrad", options, [...Object.keys(adagradDefaults), "mask"]);
  const hyper = withDefaults<Omit<AdagradHyper, "learningRate">>(adagradDefaults, options);
  checkAdagrad("adagrad", hyper);
  const schedule = asSchedule(learningRate);
  const rate = (step: number) => schedule(step) / (1 + step * hyper.lrDecay);
  return withDecay(scaleByAdagrad({ eps: hyper.eps }), { ...hyper, mask: options.mask }, rate);
}
