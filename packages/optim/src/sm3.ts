/**
 * SM3-II: Adagrad whose sums are kept for the slices of a tensor instead of its elements.
 *
 * With one accumulator for each index of each axis: `ν = beta2·min_axes(acc) + w·g²`, `w = 1` if `beta2` is 1, else `1 − beta2`;
 * `acc_axis ← max of ν over the other axes`; `u = g / √(ν + eps)`; `m ← beta1·m + (1 − beta1)·u`, with `ema: false` `beta1·m + u`;
 * `p ← p − lr·(m + weightDecay·p)`.
 *
 * Anil, Gupta, Koren & Singer 2019, arXiv:1901.11150. For large embeddings and Transformers under tight memory; tune the learning rate as Adagrad's.
 */
import { add, div, max, minimum, mul, sqrt, square, type Tensor, type TensorTree, zeros } from "@llmeff/tensor";
import { average } from "./adamw.js";
import {
  checkBeta,
  checkBoolean,
  checkKeys,
  checkNotNegative,
  checkNumber,
  checkPositive,
  withDefaults,
} from "./check.js";
import { type DecayMask, withDecay } from "./decay.js";
import type { CommonOptions } from "./optimizer-types.js";
import { emptyRecord, own } from "./records.js";
import type { ScalarOrSchedule } from "./schedules.js";
import type { Parameter } from "./storage.js";
import { type GradientTransformation, type TransformState, zerosOf } from "./transform.js";
import { TransformOptimizer, type TransformRule } from "./transform-optimizer.js";
import { mapTrees } from "./trees.js";

export interface Sm3Scaling {
  /** Decay of the momentum. Default 0.9. */
  beta1: number;
  /** 1 (default): the accumulators are sums. Below 1: running averages. */
  beta2: number;
  /** Added under the root. Default 1e-10. */
  eps: number;
  /** `true` (default): the momentum is an average. `false`: heavy ball. */
  ema: boolean;
}

export interface SM3Hyper extends Sm3Scaling {
  /** Default 0.1. */
  learningRate: ScalarOrSchedule;
  /** Decoupled. Default 0. */
  weightDecay: number;
}
export interface SM3Options extends Partial<SM3Hyper>, CommonOptions<SM3Hyper> {}

const scalingDefaults = { beta1: 0.9, beta2: 1, eps: 1e-10, ema: true } as const;
const sm3Defaults = { ...scalingDefaults, weightDecay: 0 } as const;

function checkScaling(where: string, { beta1, beta2, eps, ema }: Sm3Scaling): void {
  checkBeta(where, "beta1", beta1);
  checkNumber(where, "beta2", beta2, "a number in (0, 1]", (x) => x > 0 && x <= 1);
  checkPositive(where, "eps", eps);
  checkBoolean(where, "ema", ema);
}
function checkSM3(where: string, hyper: Omit<SM3Hyper, "learningRate">): void {
  checkScaling(where, hyper);
  checkNotNegative(where, "weightDecay", hyper.weightDecay);
}

export interface SM3State {
  readonly [key: string]: TransformState;
  /** `axes[i]` by path: the accumulators of axis i, of length 1 along all others. */
  readonly axes: readonly Readonly<Record<string, Tensor>>[];
  readonly m: TensorTree;
}

/** SM3's momentum `m` of scaled gradients. A scalar has one accumulator. */
export function scaleBySM3(options: Partial<Sm3Scaling> = {}): GradientTransformation<SM3State> {
  checkKeys("scaleBySM3", options, Object.keys(scalingDefaults));
  const hyper = withDefaults<Sm3Scaling>(scalingDefaults, options);
  checkScaling("scaleBySM3", hyper);
  const { beta1, beta2, eps, ema } = hyper;
  return {
    init(params) {
      const axes: Record<string, Tensor>[] = [];
      mapTrees((p, path) => {
        for (let axis = 0; axis < Math.max(1, p.rank); axis++) {
          axes[axis] ??= emptyRecord();
          const shape = p.shape.map((n, i) => (i === axis ? n : 1));
          axes[axis]![path] = zeros(shape, { dtype: p.dtype, device: p.device });
        }
        return p;
      }, params);
      return { axes, m: zerosOf(params) };
    },
    update(grads, state) {
      const axes: Record<string, Tensor>[] = state.axes.map(() => emptyRecord());
      const scaled = mapTrees((g, path) => {
        const accumulators = state.axes.flatMap((axis) => own(axis, path) ?? []);
        const least = accumulators.reduce((a, b) => minimum(a, b));
        const sample = mul(square(g), beta2 === 1 ? 1 : 1 - beta2);
        const second = add(mul(least, beta2), sample);
        for (const axis of accumulators.keys()) {
          const others = g.shape.map((_, i) => i).filter((i) => i !== axis);
          axes[axis]![path] = others.length === 0 ? second : max(second, { axis: others, keepDims: true });
        }
        return div(g, sqrt(add(second, eps)));
      }, grads);
      const m = mapTrees((u, old) => (ema ? average(old, u, beta1) : add(mul(old, beta1), u)), scaled, state.m);
      return { updates: m, state: { axes, m } };
    },
  };
}

/**
 * SM3-II as a chain of transforms.
 *
 * @example
 * const transform = sm3(0.1, { beta2: 0.999 });
 */
export function sm3(
  learningRate: ScalarOrSchedule,
  options: Partial<Omit<SM3Hyper, "learningRate">> & DecayMask = {},
): GradientTransformation<readonly TransformState[]> {
  checkKeys("sm3", options, [...Object.keys(sm3Defaults), "mask"]);
  const { weightDecay, ...scaling } = withDefaults<Omit<SM3Hyper, "learningRate">>(sm3Defaults, options);
  const direction = scaleBySM3(scaling) as GradientTransformation;
  return withDecay(direction, { weightDecay, decoupled: true, mask: options.mask }, learningRate);
}

const sm3Rule: TransformRule<SM3Hyper> = {
  kind: "sm3",
  name: "SM3",
  defaults: { learningRate: 0.1, ...sm3Defaults },
  check: checkSM3,
  transform: ({ learningRate, ...hyper }) => sm3(learningRate, hyper),
};

/**
 * SM3-II with the options of an optimizer: one number of state a parameter for the momentum, and one for each index of each axis. Of typed arrays
 * `shapes` says which have several axes. It steps with tensor operations, not with a fused kernel.
 *
 * @param params - tensors, or typed arrays, which are changed in place
 * @throws {OptionError} for a hyper-parameter outside its domain or an unknown option
 *
 * @example
 * const optimizer = new SM3(params, { learningRate: 0.1 });
 */
export class SM3<P extends Parameter> extends TransformOptimizer<P, SM3Hyper> {
  constructor(params: Readonly<Record<string, P>>, options: SM3Options = {}) {
    super(sm3Rule, params, options);
  }
}
