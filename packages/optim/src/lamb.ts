/**
 * LAMB: Adam's direction, given in each tensor the length of its parameters.
 *
 * `r = m̂ / (√v̂ + eps) + weightDecay·p`; `p ← p − lr · ‖p‖ / ‖r‖ · r`, the ratio 1 where either norm is 0.
 *
 * You et al. 2020, arXiv:1904.00962. For very large batches (BERT in 76 minutes); below some thousands of sequences AdamW does as well.
 */
import { div, equal, globalNorm, minimum, mul, type Tensor, where } from "@llmeff/tensor";
import { scaleByAdam } from "./adamw.js";
import { type AdamWHyper, adamwDefaults, checkAdamW } from "./adamw-options.js";
import { checkKeys, withDefaults } from "./check.js";
import type { DecayMask } from "./decay.js";
import type { CommonOptions } from "./optimizer-types.js";
import type { ScalarOrSchedule } from "./schedules.js";
import type { Parameter } from "./storage.js";
import {
  addDecayedWeights,
  chain,
  type GradientTransformation,
  scaleByLearningRate,
  stateless,
  type TransformState,
} from "./transform.js";
import { TransformOptimizer, type TransformRule } from "./transform-optimizer.js";
import { mapTrees } from "./trees.js";

/** Hyper-parameters of LAMB: `beta1` 0.9, `beta2` 0.999, `eps` 1e-6, `weightDecay` 0 by default, decoupled. */
export interface LambHyper extends Pick<AdamWHyper, "beta1" | "beta2" | "eps" | "weightDecay"> {
  /** Default 1e-3. */
  learningRate: ScalarOrSchedule;
}
export interface LambOptions extends Partial<LambHyper>, CommonOptions<LambHyper> {}

const lambDefaults = { beta1: 0.9, beta2: 0.999, eps: 1e-6, weightDecay: 0 } as const;

/** `‖p‖ / ‖g‖ · g` for each tensor, `g` itself where either norm is 0 (You et al. 2020). */
export function scaleByTrustRatio(): GradientTransformation<Record<string, never>> {
  const ratio = (g: Tensor, p: Tensor) => {
    const [length, norm] = [globalNorm([p]), globalNorm([g])];
    const zero = equal(minimum(length, norm), 0);
    return mul(g, where(zero, 1, div(length, where(zero, 1, norm))));
  };
  return stateless((grads, params) => mapTrees(ratio, grads, params));
}

/**
 * LAMB as a chain of transforms.
 *
 * @example
 * const transform = lamb(2e-3, { weightDecay: 0.01, mask: (path, p) => p.rank >= 2 });
 */
export function lamb(
  learningRate: ScalarOrSchedule,
  options: Partial<Omit<LambHyper, "learningRate">> & DecayMask = {},
): GradientTransformation<readonly TransformState[]> {
  checkKeys("lamb", options, [...Object.keys(lambDefaults), "mask"]);
  const { weightDecay, ...adam } = withDefaults<Omit<LambHyper, "learningRate">>(lambDefaults, options);
  return chain(
    scaleByAdam(adam),
    addDecayedWeights(weightDecay, options.mask),
    scaleByTrustRatio(),
    scaleByLearningRate(learningRate),
  );
}

const lambRule: TransformRule<LambHyper> = {
  kind: "lamb",
  name: "Lamb",
  defaults: { learningRate: 1e-3, ...lambDefaults },
  check: (where, hyper) => checkAdamW(where, { ...adamwDefaults, ...hyper }),
  transform: ({ learningRate, ...hyper }) => lamb(learningRate, hyper),
};

/**
 * LAMB with the options of an optimizer; two numbers of state a parameter. It steps with tensor operations, not with a fused kernel.
 *
 * @param params - tensors, or typed arrays, which are changed in place
 * @throws {OptionError} for a hyper-parameter outside its domain or an unknown option
 *
 * @example
 * const optimizer = new Lamb(params, { learningRate: 2e-3, weightDecay: 0.01, decay: "matrices" });
 */
export class Lamb<P extends Parameter> extends TransformOptimizer<P, LambHyper> {
  constructor(params: Readonly<Record<string, P>>, options: LambOptions = {}) {
    super(lambRule, params, options);
  }
}
