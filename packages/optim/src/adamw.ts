/**
 * Adam as a gradient transform, written with tensor operations; `AdamW` is the same mathematics in one fused kernel.
 */
import { add, div, maximum, mul, sqrt, square, type Tensor, type TensorTree } from "@llmeff/tensor";
import { type AdamWHyper, adamwDefaults, checkAdamW } from "./adamw-options.js";
import { checkDecay, checkKeys, requireOptions, withDefaults } from "./check.js";
import { type DecayMask, withDecay } from "./decay.js";
import type { ScalarOrSchedule } from "./schedules.js";
import { type GradientTransformation, type TransformState, zerosOf } from "./transform.js";
import { mapTrees } from "./trees.js";

type AdamHyper = Pick<AdamWHyper, "beta1" | "beta2" | "eps" | "amsgrad">;

export interface AdamState {
  readonly [key: string]: TransformState;
  readonly count: number;
  readonly m: TensorTree;
  readonly v: TensorTree;
}

/** `m̂ / (√v̂ + eps)`: gradients scaled by Adam's running moments (Kingma & Ba 2015). */
export function scaleByAdam(options: Partial<AdamHyper> = {}): GradientTransformation<AdamState> {
  checkKeys("scaleByAdam", options, ["beta1", "beta2", "eps", "amsgrad"]);
  const hyper = withDefaults<Omit<AdamWHyper, "learningRate">>(adamwDefaults, options);
  checkAdamW("scaleByAdam", hyper);
  const { beta1, beta2, eps, amsgrad } = hyper;
  return {
    init: (params) => ({
      count: 0,
      m: zerosOf(params),
      v: zerosOf(params),
      ...(amsgrad ? { maxV: zerosOf(params) } : {}),
    }),
    update(grads, state) {
      const count = state.count + 1;
      const m = mapTrees((g, old) => average(old, g, beta1), grads, state.m);
      const v = mapTrees((g, old) => average(old, square(g), beta2), grads, state.v);
      const maxV = amsgrad ? mapTrees((a, b) => maximum(a, b), state.maxV as TensorTree, v) : undefined;
      const updates = mapTrees(
        (_g, first, second) => div(div(first, 1 - beta1 ** count), add(sqrt(div(second, 1 - beta2 ** count)), eps)),
        grads,
        m,
        maxV ?? v,
      );
      return { updates, state: maxV ? { count, m, v, maxV } : { count, m, v } };
    },
  };
}

/** `beta · old + (1 − beta) · sample` */
export function average(old: Tensor, sample: Tensor, beta: number): Tensor {
  return add(mul(old, beta), mul(sample, 1 - beta));
}

/** Options of `adamw`. */
export interface AdamWTransformOptions extends Partial<Omit<AdamWHyper, "learningRate">>, DecayMask {}

/**
 * AdamW as a chain of transforms: `u = −lr · (m̂ / (√v̂ + eps) + weightDecay · p)`.
 *
 * @example
 * const transform = adamw(3e-4, { weightDecay: 0.1, mask: (path, p) => p.rank >= 2 });
 */
export function adamw(
  learningRate: ScalarOrSchedule,
  options: AdamWTransformOptions = {},
): GradientTransformation<readonly TransformState[]> {
  checkKeys("adamw", options, [...Object.keys(adamwDefaults), "mask"]);
  const { weightDecay, decoupled, ...adam } = withDefaults<Omit<AdamWHyper, "learningRate">>(adamwDefaults, options);
  checkDecay("adamw", { weightDecay, decoupled });
  const direction = scaleByAdam(adam) as GradientTransformation;
  return withDecay(direction, { weightDecay, decoupled, mask: options.mask }, learningRate);
}

/**
 * Adam as a chain of transforms: `adamw` without weight decay, and with L2 decay if there is some.
 *
 * @example
 * const transform = adam(1e-3);
 */
export function adam(
  learningRate: ScalarOrSchedule,
  options: AdamWTransformOptions = {},
): GradientTransformation<readonly TransformState[]> {
  requireOptions("adam", options);
  return adamw(learningRate, { weightDecay: 0, decoupled: false, ...options });
}
