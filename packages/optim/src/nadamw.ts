/**
 * AdamW with Nesterov's momentum. Three rules carry that name; `variant` chooses:
 *
 * - `"algoperf"` (default), the baseline of the AlgoPerf benchmark: `m̂ = (beta1·m + (1 − beta1)·g) / (1 − beta1^t)`;
 * - `"optax"` (`adamw(nesterov=True)`): `m̂ = beta1·m / (1 − beta1^(t+1)) + (1 − beta1)·g / (1 − beta1^t)`;
 * - `"torch"` (`NAdam`): `μ_t = beta1·(1 − ½·0.96^(t·momentumDecay))`, `Π_t = μ_1⋯μ_t`, `m̂ = μ_(t+1)·m / (1 − Π_(t+1)) + (1 − μ_t)·g / (1 − Π_t)`.
 *
 * All: `p ← (1 − lr·weightDecay)·p − lr · m̂ / (√v̂ + eps)`, with `m` and `v̂` as in AdamW and `m` of the step itself.
 *
 * Dozat 2016; Loshchilov & Hutter 2019 for the decay. As `AdamW`, often a little faster; the baseline to beat in AlgoPerf.
 */
import { UpdateRule } from "@llmeff/native";
import { add, div, mul, sqrt, square } from "@llmeff/tensor";
import { type AdamState, average } from "./adamw.js";
import { checkBeta, checkDecay, checkKeys, checkNotNegative, checkOneOf, withDefaults } from "./check.js";
import { type DecayHyper, type DecayMask, withDecay } from "./decay.js";
import { ElementwiseOptimizer, type ElementwiseRule } from "./elementwise.js";
import { adamFactors } from "./fused-adamw.js";
import type { CommonOptions } from "./optimizer-types.js";
import type { ScalarOrSchedule } from "./schedules.js";
import type { Parameter } from "./storage.js";
import { type GradientTransformation, type TransformState, zerosOf } from "./transform.js";
import { mapTrees } from "./trees.js";

const variants = ["algoperf", "optax", "torch"] as const;
export type NAdamVariant = (typeof variants)[number];

export interface NAdamHyper {
  /** Decay of the average of the gradients. Default 0.9. */
  beta1: number;
  /** Decay of the average of their squares. Default 0.999. */
  beta2: number;
  /** Added to the root of the second moment. Default 1e-8. */
  eps: number;
  /** Which of the three rules. Default `"algoperf"`. */
  variant: NAdamVariant;
  /** How fast the momentum of the variant `"torch"` warms up; the others have no use for it. Default 4e-3. */
  momentumDecay: number;
}

/** Hyper-parameters of NAdamW: `weightDecay` 1e-2 and `decoupled` true by default. */
export interface NAdamWHyper extends NAdamHyper, DecayHyper {
  /** Default 2e-3. */
  learningRate: ScalarOrSchedule;
}
export interface NAdamWOptions extends Partial<NAdamWHyper>, CommonOptions<NAdamWHyper> {}

const nadamDefaults = { beta1: 0.9, beta2: 0.999, eps: 1e-8, variant: "algoperf", momentumDecay: 4e-3 } as const;
const nadamwDefaults = { ...nadamDefaults, weightDecay: 1e-2, decoupled: true } as const;

function checkNAdam(where: string, hyper: NAdamHyper): void {
  checkBeta(where, "beta1", hyper.beta1);
  checkBeta(where, "beta2", hyper.beta2);
  checkNotNegative(where, "eps", hyper.eps);
  checkOneOf(where, "variant", hyper.variant, variants);
  checkNotNegative(where, "momentumDecay", hyper.momentumDecay);
}

/** What `m` and `g` are multiplied by in `m̂` at step t. */
function meanWeights({ beta1, variant, momentumDecay }: NAdamHyper, t: number): [mean: number, grad: number] {
  const correction = 1 - beta1 ** t;
  if (variant === "algoperf") return [beta1 / correction, (1 - beta1) / correction];
  if (variant === "optax") return [beta1 / (1 - beta1 ** (t + 1)), (1 - beta1) / correction];
  const mu = (i: number) => beta1 * (1 - 0.5 * 0.96 ** (i * momentumDecay));
  let product = 1;
  // Below half a rounding of 1 the product changes nothing any more.
  for (let i = 1; i <= t && product > 2 ** -54; i++) product *= mu(i);
  return [mu(t + 1) / (1 - product * mu(t + 1)), (1 - mu(t)) / (1 - product)];
}

const nadamwRule: ElementwiseRule<NAdamWHyper> = {
  kind: "nadamw",
  name: "NAdamW",
  defaults: { learningRate: 2e-3, ...nadamwDefaults },
  check(where, hyper) {
    checkNAdam(where, hyper);
    checkDecay(where, hyper);
  },
  step(hyper, step) {
    const [mean, grad] = meanWeights(hyper, step);
    const { learningRate } = hyper;
    return {
      rule: UpdateRule.adam,
      states: ["m", "v"],
      factors: adamFactors(hyper, step, learningRate * mean, learningRate * grad),
    };
  },
  stateDomains: { notNegative: ["v"] },
};

/**
 * AdamW with Nesterov's momentum, in the fused kernel of AdamW: two numbers of state and 28 bytes of memory traffic a float32 parameter.
 *
 * @param params - tensors, or typed arrays, which are changed in place
 * @throws {OptionError} for a hyper-parameter outside its domain or an unknown option
 *
 * @example
 * const optimizer = new NAdamW(params, { learningRate: 2e-3, weightDecay: 0.1 });
 */
export class NAdamW<P extends Parameter> extends ElementwiseOptimizer<P, NAdamWHyper> {
  constructor(params: Readonly<Record<string, P>>, options: NAdamWOptions = {}) {
    super(nadamwRule, params, options);
  }
}

/** `m̂ / (√v̂ + eps)`: gradients scaled by Adam's running moments, with Nesterov's momentum. */
export function scaleByNAdam(options: Partial<NAdamHyper> = {}): GradientTransformation<AdamState> {
  checkKeys("scaleByNAdam", options, Object.keys(nadamDefaults));
  const hyper = withDefaults<NAdamHyper>(nadamDefaults, options);
  checkNAdam("scaleByNAdam", hyper);
  const { beta1, beta2, eps } = hyper;
  return {
    init: (params) => ({ count: 0, m: zerosOf(params), v: zerosOf(params) }),
    update(grads, state) {
      const count = state.count + 1;
      const m = mapTrees((g, old) => average(old, g, beta1), grads, state.m);
      const v = mapTrees((g, old) => average(old, square(g), beta2), grads, state.v);
      const [meanWeight, gradWeight] = meanWeights(hyper, count);
      const updates = mapTrees(
        (g, first, second) =>
          div(add(mul(first, meanWeight), mul(g, gradWeight)), add(sqrt(div(second, 1 - beta2 ** count)), eps)),
        grads,
        m,
        v,
      );
      return { updates, state: { count, m, v } };
    },
  };
}

/**
 * NAdamW as a chain of transforms.
 *
 * @example
 * const transform = nadamw(2e-3, { variant: "optax", weightDecay: 0.1 });
 */
export function nadamw(
  learningRate: ScalarOrSchedule,
  options: Partial<Omit<NAdamWHyper, "learningRate">> & DecayMask = {},
): GradientTransformation<readonly TransformState[]> {
  checkKeys("nadamw", options, [...Object.keys(nadamwDefaults), "mask"]);
  const hyper = withDefaults<Omit<NAdamWHyper, "learningRate">>(nadamwDefaults, options);
  checkDecay("nadamw", hyper);
  const { weightDecay, decoupled, ...nadam } = hyper;
  const direction = scaleByNAdam(nadam) as GradientTransformation;
  return withDecay(direction, { weightDecay, decoupled, mask: options.mask }, learningRate);
}
