/**
 * RMSprop: gradients divided by the root of the running average of their squares.
 *
 * `v ← alpha·v + (1 − alpha)·g²`; centered: `a ← alpha·a + (1 − alpha)·g` and `v̂ = max(v − a², 0)`, else `v̂ = v`; `u = g / (√v̂ + eps)`; with
 * momentum `b ← momentum·b + u`, `u = b`; `p ← p − lr·u`.
 *
 * Tieleman & Hinton 2012; Graves 2013 (centered). As in PyTorch, eps is outside of the root, which optax has it inside of by default. For recurrent
 * networks and reinforcement learning; Adam adds bias correction and averaged gradients.
 */
import { UpdateRule } from "@llmeff/native";
import { add, div, maximum, mul, sqrt, square, sub, type TensorTree } from "@llmeff/tensor";
import { average } from "./adamw.js";
import { checkBeta, checkBoolean, checkDecay, checkKeys, checkNotNegative, withDefaults } from "./check.js";
import { type DecayHyper, type DecayMask, decayFactors, withDecay } from "./decay.js";
import { ElementwiseOptimizer, type ElementwiseRule } from "./elementwise.js";
import type { CommonOptions } from "./optimizer-types.js";
import type { ScalarOrSchedule } from "./schedules.js";
import type { Parameter } from "./storage.js";
import { chain, type GradientTransformation, type TransformState, trace, zerosOf } from "./transform.js";
import { mapTrees } from "./trees.js";

export interface RmsHyper {
  /** Decay of the averages. Default 0.99. */
  alpha: number;
  /** Added to the root of the second moment. Default 1e-8. */
  eps: number;
  /** Divides by the root of the variance instead of the second moment. Default `false`. */
  centered: boolean;
}

/** Hyper-parameters of RMSprop; the defaults are PyTorch's: `weightDecay` 0, `decoupled` false. */
export interface RMSpropHyper extends RmsHyper, DecayHyper {
  /** Default 1e-2. */
  learningRate: ScalarOrSchedule;
  /** Heavy-ball factor of the scaled gradients, in [0, 1). Default 0. */
  momentum: number;
}
export interface RMSpropOptions extends Partial<RMSpropHyper>, CommonOptions<RMSpropHyper> {}

const rmsDefaults = { alpha: 0.99, eps: 1e-8, centered: false } as const;
const rmspropDefaults = { ...rmsDefaults, momentum: 0, weightDecay: 0, decoupled: false } as const;

function checkRms(where: string, { alpha, eps, centered }: RmsHyper): void {
  checkBeta(where, "alpha", alpha);
  checkNotNegative(where, "eps", eps);
  checkBoolean(where, "centered", centered);
}
function checkRMSprop(where: string, hyper: Omit<RMSpropHyper, "learningRate">): void {
  checkRms(where, hyper);
  checkBeta(where, "momentum", hyper.momentum);
  checkDecay(where, hyper);
}

const rules = {
  plain: [UpdateRule.rmsprop, UpdateRule.rmspropMomentum],
  centered: [UpdateRule.rmspropCentered, UpdateRule.rmspropCenteredMomentum],
} as const;

const rmspropRule: ElementwiseRule<RMSpropHyper> = {
  kind: "rmsprop",
  name: "RMSprop",
  defaults: { learningRate: 1e-2, ...rmspropDefaults },
  check: checkRMSprop,
  step(hyper) {
    const { learningRate, alpha, eps, centered, momentum } = hyper;
    return {
      rule: rules[centered ? "centered" : "plain"][momentum > 0 ? 1 : 0],
      states: ["v", ...(centered ? ["average"] : []), ...(momentum > 0 ? ["momentum"] : [])],
      factors: [...decayFactors(learningRate, hyper), alpha, 1 - alpha, eps, momentum, learningRate],
    };
  },
  stateDomains: { notNegative: ["v"] },
};

/**
 * RMSprop, plain or centered, with or without momentum, in one fused kernel: one to three numbers of state and 20 to 36 bytes of memory traffic a
 * float32 parameter.
 *
 * @param params - tensors, or typed arrays, which are changed in place
 * @throws {OptionError} for a hyper-parameter outside its domain or an unknown option
 *
 * @example
 * const optimizer = new RMSprop(params, { learningRate: 1e-3, momentum: 0.9 });
 */
export class RMSprop<P extends Parameter> extends ElementwiseOptimizer<P, RMSpropHyper> {
  constructor(params: Readonly<Record<string, P>>, options: RMSpropOptions = {}) {
    super(rmspropRule, params, options);
  }
}

export interface RmsState {
  readonly [key: string]: TransformState;
  readonly v: TensorTree;
}

/** `g / (√v̂ + eps)`: gradients over the root of their second moment, or of their variance. */
export function scaleByRms(options: Partial<RmsHyper> = {}): GradientTransformation<RmsState> {
  checkKeys("scaleByRms", options, Object.keys(rmsDefaults));
  const hyper = withDefaults<RmsHyper>(rmsDefaults, options);
  checkRms("scaleByRms", hyper);
  const { alpha, eps, centered } = hyper;
  return {
    init: (params) => ({ v: zerosOf(params), ...(centered ? { average: zerosOf(params) } : {}) }),
    update(grads, state) {
      const v = mapTrees((g, old) => average(old, square(g), alpha), grads, state.v);
      if (!centered) return { updates: mapTrees((g, x) => div(g, add(sqrt(x), eps)), grads, v), state: { v } };
      const mean = mapTrees((g, old) => average(old, g, alpha), grads, state.average as TensorTree);
      const variance = mapTrees((x, a) => maximum(sub(x, mul(a, a)), 0), v, mean);
      const updates = mapTrees((g, x) => div(g, add(sqrt(x), eps)), grads, variance);
      return { updates, state: { v, average: mean } };
    },
  };
}

/**
 * RMSprop as a chain of transforms.
 *
 * @example
 * const transform = rmsprop(1e-3, { centered: true, momentum: 0.9 });
 */
export function rmsprop(
  learningRate: ScalarOrSchedule,
  options: Partial<Omit<RMSpropHyper, "learningRate">> & DecayMask = {},
): GradientTransformation<readonly TransformState[]> {
  checkKeys("rmsprop", options, [...Object.keys(rmspropDefaults), "mask"]);
  const hyper = withDefaults<Omit<RMSpropHyper, "learningRate">>(rmspropDefaults, options);
  checkRMSprop("rmsprop", hyper);
  const { alpha, eps, centered, momentum } = hyper;
  const scaled = scaleByRms({ alpha, eps, centered });
  const direction = momentum > 0 ? chain(scaled, trace({ decay: momentum })) : scaled;
  return withDecay(direction as GradientTransformation, { ...hyper, mask: options.mask }, learningRate);
}
