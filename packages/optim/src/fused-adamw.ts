import { engine } from "@llmeff/native";
import { type AdamWHyper, adamwDefaults, checkAdamW } from "./adamw-options.js";
import { withDefaults } from "./check.js";
import { FusedOptimizer } from "./optimizer.js";
import { type Bucket, type CommonOptions, roundings, stepped } from "./optimizer-types.js";
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
export class AdamW<P extends Parameter> extends FusedOptimizer<P, AdamWHyper> {
  readonly kind = "adamw";

  constructor(params: Readonly<Record<string, P>>, options: AdamWOptions = {}) {
    const hyper = withDefaults<AdamWHyper>({ learningRate: 1e-3, ...adamwDefaults }, options);
    super("AdamW", params, hyper, options, (group) => (group.amsgrad ? ["m", "v", "maxV"] : ["m", "v"]), checkAdamW);
  }

  protected override prepareBucket({
    slots,
    grads,
    hyper,
    learningRate,
    step,
    gradScale,
  }: Bucket<P, AdamWHyper>): () => void {
    const { operand } = this.storage;
    const state = (key: string) => slots.map((slot) => operand(slot.state[key]!));
    return engine().op.adamwStep.bind(
      null,
      slots.map((slot) => operand(stepped(slot))),
      roundings(slots).map(operand),
      grads.map(operand),
      state("m"),
      state("v"),
      hyper.amsgrad ? state("maxV") : [],
      gradScale,
      learningRate,
      hyper.beta1,
      hyper.beta2,
      hyper.eps,
      hyper.weightDecay,
      hyper.decoupled,
      step,
    );
  }
}
