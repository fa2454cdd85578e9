/**
 * Lion: steps of one size in every coordinate, along the sign of an average of gradients.
 *
 * `p ← (1 − lr·weightDecay)·p − lr · sign(beta1·m + (1 − beta1)·g)`; then `m ← beta2·m + (1 − beta2)·g`; `sign(0) = 0`.
 *
 * Chen et al. 2023, arXiv:2302.06675. Half of Adam's memory; takes learning rates 3 to 10 times smaller and weight decays 3 to 10 times larger
 * than AdamW, and gains with the batch size.
 */
import { UpdateRule } from "@llmeff/native";
import { sign, type TensorTree } from "@llmeff/tensor";
import { average } from "./adamw.js";
import { checkBeta, checkKeys, checkNotNegative, withDefaults } from "./check.js";
import { type DecayMask, withDecay } from "./decay.js";
import { ElementwiseOptimizer, type ElementwiseRule } from "./elementwise.js";
import type { CommonOptions } from "./optimizer-types.js";
import type { ScalarOrSchedule } from "./schedules.js";
import type { Parameter } from "./storage.js";
import { type GradientTransformation, type TransformState, zerosOf } from "./transform.js";
import { mapTrees } from "./trees.js";

/** Hyper-parameters of Lion; the defaults are the authors'. */
export interface LionHyper {
  /** Default 1e-4. */
  learningRate: ScalarOrSchedule;
  /** Weight of the average in the step. Default 0.9. */
  beta1: number;
  /** Decay of the average. Default 0.99. */
  beta2: number;
  /** Decoupled. Default 0. */
  weightDecay: number;
}
export interface LionOptions extends Partial<LionHyper>, CommonOptions<LionHyper> {}

const lionDefaults = { beta1: 0.9, beta2: 0.99, weightDecay: 0 } as const;

function checkLion(where: string, hyper: Omit<LionHyper, "learningRate">): void {
  checkBeta(where, "beta1", hyper.beta1);
  checkBeta(where, "beta2", hyper.beta2);
  checkNotNegative(where, "weightDecay", hyper.weightDecay);
}

const lionRule: ElementwiseRule<LionHyper> = {
  kind: "lion",
  name: "Lion",
  defaults: { learningRate: 1e-4, ...lionDefaults },
  check: checkLion,
  step({ learningRate, beta1, beta2, weightDecay }) {
    const keep = 1 - learningRate * weightDecay;
    return {
      rule: UpdateRule.lion,
      states: ["m"],
      factors: [keep, beta1, 1 - beta1, beta2, 1 - beta2, learningRate],
    };
  },
};

/**
 * Lion in one fused kernel: one number of state and 20 bytes of memory traffic a float32 parameter.
 *
 * @param params - tensors, or typed arrays, which are changed in place
 * @throws {OptionError} for a hyper-parameter outside its domain or an unknown option
 *
 * @example
 * const optimizer = new Lion(params, { learningRate: 1e-4, weightDecay: 0.3, decay: "matrices" });
 */
export class Lion<P extends Parameter> extends ElementwiseOptimizer<P, LionHyper> {
  constructor(params: Readonly<Record<string, P>>, options: LionOptions = {}) {
    super(lionRule, params, options);
  }
}

/** `sign(beta1·m + (1 − beta1)·g)`, with `m` the average of the gradients before this one. */
export function scaleByLion(
  options: { beta1?: number; beta2?: number } = {},
): GradientTransformation<{ m: TensorTree }> {
  checkKeys("scaleByLion", options, ["beta1", "beta2"]);
  const hyper = withDefaults<Omit<LionHyper, "learningRate">>(lionDefaults, options);
  checkLion("scaleByLion", hyper);
  return {
    init: (params) => ({ m: zerosOf(params) }),
    update: (grads, { m }) => ({
      updates: mapTrees((g, old) => sign(average(old, g, hyper.beta1)), grads, m),
      state: { m: mapTrees((g, old) => average(old, g, hyper.beta2), grads, m) },
    }),
  };
}

/**
 * Lion as a chain of transforms.
 *
 * @example
 * const transform = lion(1e-4, { weightDecay: 0.3 });
 */
export function lion(
  learningRate: ScalarOrSchedule,
  options: Partial<Omit<LionHyper, "learningRate">> & DecayMask = {},
): GradientTransformation<readonly TransformState[]> {
  checkKeys("lion", options, [...Object.keys(lionDefaults), "mask"]);
  const { beta1, beta2, weightDecay } = withDefaults<Omit<LionHyper, "learningRate">>(lionDefaults, options);
  return withDecay(scaleByLion({ beta1, beta2 }), { weightDecay, decoupled: true, mask: options.mask }, learningRate);
}
