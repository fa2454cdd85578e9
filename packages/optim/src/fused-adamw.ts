import { UpdateRule } from "@llmeff/native";
import { type AdamWHyper, adamwDefaults, checkAdamW } from "./adamw-options.js";
import { decayFactors } from "./decay.js";
import { ElementwiseOptimizer, type ElementwiseRule, type ElementwiseStep } from "./elementwise.js";
import type { CommonOptions } from "./optimizer-types.js";
import type { Parameter } from "./storage.js";

export interface AdamWOptions extends Partial<AdamWHyper>, CommonOptions<AdamWHyper> {}

/**
 * AdamW (Loshchilov & Hutter 2019) with decoupled weight decay, one fused multi-tensor kernel a step: 28 bytes of memory traffic a
 * float32 parameter.
 *
 * `p ← (1 − lr·weightDecay)·p − lr · m̂ / (√v̂ + eps)`, with `m̂`, `v̂` the bias-corrected running averages of `g` and `g²`.
 *
 * @param params - tensors, or typed arrays, which are changed in place
 * @throws {OptionError} for a hyper-parameter outside its domain or an unknown option
 *
 * @example
 * const optimizer = new AdamW(params, { learningRate: cosine(3e-4, 1000), maxGradNorm: 1, decay: "matrices" });
 * optimizer.step(grads);
 */
export class AdamW<P extends Parameter> extends ElementwiseOptimizer<P, AdamWHyper> {
  constructor(params: Readonly<Record<string, P>>, options: AdamWOptions = {}) {
    super(adamwRule, params, options);
  }
}

const adamwRule: ElementwiseRule<AdamWHyper> = {
  kind: "adamw",
  name: "AdamW",
  defaults: { learningRate: 1e-3, ...adamwDefaults },
  check: checkAdamW,
  step: (hyper, step) => ({
    rule: hyper.amsgrad ? UpdateRule.amsgrad : UpdateRule.adam,
    states: hyper.amsgrad ? ["m", "v", "maxV"] : ["m", "v"],
    factors: adamFactors(hyper, step, hyper.learningRate / (1 - hyper.beta1 ** step), 0),
  }),
  stateDomains: { notNegative: ["v", "maxV"] },
};

/**
 * Adam (Kingma & Ba 2015): `AdamW` under PyTorch's defaults for it, no weight decay, and L2 decay if there is some. Choose `AdamW` for anything
 * that decays.
 *
 * @example
 * const optimizer = new Adam(params, { learningRate: 1e-3 });
 */
export class Adam<P extends Parameter> extends ElementwiseOptimizer<P, AdamWHyper> {
  constructor(params: Readonly<Record<string, P>>, options: AdamWOptions = {}) {
    super(adamRule, params, options);
  }
}

const adamRule: ElementwiseRule<AdamWHyper> = {
  ...adamwRule,
  kind: "adam",
  name: "Adam",
  defaults: { ...adamwRule.defaults, weightDecay: 0, decoupled: false },
};

/** The numbers of a step of Adam or a Nesterov form of it, which moves by `meanRate·m + gradRate·g` over the root of `v̂`. */
export function adamFactors(
  hyper: Omit<AdamWHyper, "amsgrad" | "learningRate"> & { learningRate: number },
  step: number,
  meanRate: number,
  gradRate: number,
): ElementwiseStep["factors"] {
  const { beta1, beta2, eps } = hyper;
  const rootScale = 1 / Math.sqrt(1 - beta2 ** step);
  const decay = decayFactors(hyper.learningRate, hyper);
  return [...decay, beta1, 1 - beta1, beta2, 1 - beta2, rootScale, eps, meanRate, gradRate];
}
