/**
 * Stochastic gradient descent with momentum.
 *
 * `d = g` (with L2 decay `g + weightDecay·p`); `b ← momentum·b + (1 − dampening)·d`, at the first step `b = d`;
 * `p ← p − lr·b`, with `nesterov` `p − lr·(d + momentum·b)`, without momentum `p − lr·d`.
 *
 * Robbins & Monro 1951; Polyak 1964; Sutskever et al. 2013 for this form of Nesterov's momentum; semantics of PyTorch. For vision models and
 * fine-tuning with a tuned rate; Transformers want Adam's scaling by coordinate.
 */
import { OptionError, UpdateRule } from "@llmeff/native";
import { add, mul, type TensorTree } from "@llmeff/tensor";
import { checkBeta, checkBoolean, checkDecay, checkKeys, withDefaults } from "./check.js";
import { type DecayHyper, type DecayMask, decayFactors, withDecay } from "./decay.js";
import { ElementwiseOptimizer, type ElementwiseRule } from "./elementwise.js";
import type { CommonOptions } from "./optimizer-types.js";
import type { ScalarOrSchedule } from "./schedules.js";
import type { Parameter } from "./storage.js";
import { type GradientTransformation, identity, type TransformState, zerosOf } from "./transform.js";
import { mapTrees } from "./trees.js";

export interface MomentumHyper {
  /** Heavy-ball factor in [0, 1); 0 (default) turns momentum off. */
  momentum: number;
  /** Takes `1 − dampening` of each gradient but the first into the momentum. Default 0. */
  dampening: number;
  /** Looks ahead along the momentum; needs momentum and no dampening. Default `false`. */
  nesterov: boolean;
}

/** Hyper-parameters of SGD; the defaults are PyTorch's: `weightDecay` 0, `decoupled` false. */
export interface SGDHyper extends MomentumHyper, DecayHyper {
  /** Default 1e-3. */
  learningRate: ScalarOrSchedule;
}
export interface SGDOptions extends Partial<SGDHyper>, CommonOptions<SGDHyper> {}

const momentumDefaults = { momentum: 0, dampening: 0, nesterov: false } as const;
const sgdDefaults = { ...momentumDefaults, weightDecay: 0, decoupled: false } as const;

function checkMomentum(where: string, { momentum, dampening, nesterov }: MomentumHyper): void {
  checkBeta(where, "momentum", momentum);
  checkBeta(where, "dampening", dampening);
  checkBoolean(where, "nesterov", nesterov);
  if (nesterov && (momentum === 0 || dampening !== 0)) {
    throw new OptionError(
      `[${where}] nesterov needs a momentum above 0 and a dampening of 0; received ${momentum} and ${dampening}.`,
    );
  }
}

const sgdRule: ElementwiseRule<SGDHyper> = {
  kind: "sgd",
  name: "SGD",
  defaults: { learningRate: 1e-3, ...sgdDefaults },
  check(where, hyper) {
    checkMomentum(where, hyper);
    checkDecay(where, hyper);
  },
  step(hyper, step) {
    const { learningRate, momentum, dampening, nesterov } = hyper;
    const decay = decayFactors(learningRate, hyper);
    if (momentum === 0) return { rule: UpdateRule.sgd, states: [], factors: [...decay, learningRate] };
    const gain = step === 1 ? 1 : 1 - dampening;
    const rates = nesterov ? [learningRate * momentum, learningRate] : [learningRate, 0];
    return { rule: UpdateRule.momentum, states: ["momentum"], factors: [...decay, momentum, gain, ...rates] };
  },
};

/**
 * Stochastic gradient descent, with momentum, Nesterov's momentum and either kind of weight decay, in one fused kernel: no state and 12 bytes of
 * memory traffic a float32 parameter, or one number and 20 bytes with momentum.
 *
 * @param params - tensors, or typed arrays, which are changed in place
 * @throws {OptionError} for a hyper-parameter outside its domain or an unknown option
 *
 * @example
 * const optimizer = new SGD(params, { learningRate: 0.1, momentum: 0.9, nesterov: true, weightDecay: 5e-4 });
 */
export class SGD<P extends Parameter> extends ElementwiseOptimizer<P, SGDHyper> {
  constructor(params: Readonly<Record<string, P>>, options: SGDOptions = {}) {
    super(sgdRule, params, options);
  }
}

/** The momentum of SGD with dampening: `b`, or with `nesterov` `g + momentum·b`. Without dampening the same as `trace`. */
export function scaleByMomentum(
  options: Partial<MomentumHyper> = {},
): GradientTransformation<{ count: number; momentum: TensorTree }> {
  checkKeys("scaleByMomentum", options, Object.keys(momentumDefaults));
  const hyper = withDefaults<MomentumHyper>(momentumDefaults, options);
  checkMomentum("scaleByMomentum", hyper);
  const { momentum, dampening, nesterov } = hyper;
  return {
    init: (params) => ({ count: 0, momentum: zerosOf(params) }),
    update(grads, state) {
      const gain = state.count === 0 ? 1 : 1 - dampening;
      const next = mapTrees((g, b) => add(mul(b, momentum), mul(g, gain)), grads, state.momentum);
      const updates = nesterov ? mapTrees((g, b) => add(g, mul(b, momentum)), grads, next) : next;
      return { updates, state: { count: state.count + 1, momentum: next } };
    },
  };
}

/**
 * SGD as a chain of transforms.
 *
 * @example
 * const transform = sgd(0.1, { momentum: 0.9 });
 */
export function sgd(
  learningRate: ScalarOrSchedule,
  options: Partial<Omit<SGDHyper, "learningRate">> & DecayMask = {},
): GradientTransformation<readonly TransformState[]> {
  checkKeys("sgd", options, [...Object.keys(sgdDefaults), "mask"]);
  const hyper = withDefaults<Omit<SGDHyper, "learningRate">>(sgdDefaults, options);
  checkDecay("sgd", hyper);
  checkMomentum("sgd", hyper);
  const { weightDecay, decoupled, ...momentum } = hyper;
  const direction = hyper.momentum === 0 ? identity() : scaleByMomentum(momentum);
  return withDecay(direction, { weightDecay, decoupled, mask: options.mask }, learningRate);
}
