/**
 * Adafactor: Adam's second moment of a matrix kept as its row and column means, and steps relative to the size of the parameters.
 *
 * With `w = t^beta2Decay`, `ρ = min(lr, 1/√t)`, `α = max(eps2, RMS(p))·ρ`; for the last two axes of a tensor
 * `R ← (1 − w)·R + w·mean_columns(g²)`, `C ← (1 − w)·C + w·mean_rows(g²)`, `V = R·C / max(mean(R), eps1)`; of what isn't factored
 * `V ← (1 − w)·V + w·g²`. `u = g / √max(V, eps1²)`; `p ← (1 − lr·weightDecay)·p − α·u / max(1, RMS(u)/clipThreshold)`.
 *
 * Shazeer & Stern 2018, arXiv:1804.04235; semantics of PyTorch, with the original's as options. For models whose Adam state doesn't fit: it
 * needs rows + columns numbers for a matrix, and usually some more steps than Adam.
 */
import { accumulationDType, add, div, maximum, mean, mul, sqrt, square, type Tensor, zeros } from "@llmeff/tensor";
import { average } from "./adamw.js";
import {
  checkBeta,
  checkCount,
  checkKeys,
  checkNotNegative,
  checkNumber,
  checkOneOf,
  checkPositive,
  withDefaults,
} from "./check.js";
import { clipByBlockRms } from "./clip-blocks.js";
import { type DecayMask, decayed } from "./decay.js";
import { ema } from "./ema.js";
import type { CommonOptions } from "./optimizer-types.js";
import { emptyRecord, own } from "./records.js";
import { asSchedule, type ScalarOrSchedule, type Schedule } from "./schedules.js";
import type { Parameter } from "./storage.js";
import {
  chain,
  type GradientTransformation,
  scaleByLearningRate,
  stateless,
  type TransformState,
  type TreeMask,
} from "./transform.js";
import { TransformOptimizer, type TransformRule } from "./transform-optimizer.js";
import { mapTrees } from "./trees.js";

const variants = ["torch", "original"] as const;

export interface FactoredHyper {
  /** The averages forget with `1 − t^beta2Decay`; below 0. Default −0.8. */
  beta2Decay: number;
  /** Default: the rounding of 1 in the parameter's dtype for `"torch"`, 1e-30 for `"original"`. */
  eps1: number | undefined;
  /** `"torch"` (default): eps1 bounds the mean of the rows, and its square the second moment. `"original"`: eps1 is added to the squared gradients. */
  variant: (typeof variants)[number];
  /** Tensors whose last two axes both have at least this length are factored. Default 0, as in PyTorch; the authors' code and optax have 128. */
  minFactoredDim: number;
}

export interface AdafactorHyper extends FactoredHyper {
  /** The largest relative step. Default 1e-2. */
  learningRate: ScalarOrSchedule;
  /** The least size of a parameter that steps are relative to. Default 1e-3. */
  eps2: number;
  /** Updates with a larger root mean square are scaled down to it. Default 1. */
  clipThreshold: number;
  /** Decay of an average of the steps, the original's optional momentum; 0 (default) turns it off. One number of state a parameter. */
  beta1: number;
  /** Decoupled, times the learning rate alone. Default 0. */
  weightDecay: number;
}
export interface AdafactorOptions extends Partial<AdafactorHyper>, CommonOptions<AdafactorHyper> {}

const factoredDefaults = { beta2Decay: -0.8, eps1: undefined, variant: "torch", minFactoredDim: 0 } as const;
const adafactorDefaults = { ...factoredDefaults, eps2: 1e-3, clipThreshold: 1, beta1: 0, weightDecay: 0 } as const;

function checkFactored(where: string, hyper: FactoredHyper): void {
  checkNumber(where, "beta2Decay", hyper.beta2Decay, "a negative number", (x) => x < 0 && Number.isFinite(x));
  if (hyper.eps1 !== undefined) checkPositive(where, "eps1", hyper.eps1);
  checkOneOf(where, "variant", hyper.variant, variants);
  checkCount(where, "minFactoredDim", hyper.minFactoredDim);
}
function checkAdafactor(where: string, hyper: Omit<AdafactorHyper, "learningRate">): void {
  checkFactored(where, hyper);
  checkNotNegative(where, "eps2", hyper.eps2);
  checkPositive(where, "clipThreshold", hyper.clipThreshold);
  checkBeta(where, "beta1", hyper.beta1);
  checkNotNegative(where, "weightDecay", hyper.weightDecay);
}

type Named = Record<string, Tensor>;

/** By path; a factored tensor is in `rows` and `columns`, any other in `v`. */
export interface FactoredState {
  readonly [key: string]: TransformState;
  readonly count: number;
  readonly rows: Readonly<Record<string, Tensor>>;
  readonly columns: Readonly<Record<string, Tensor>>;
  readonly v: Readonly<Record<string, Tensor>>;
}

const emptyState = (count: number): { count: number; rows: Named; columns: Named; v: Named } => ({
  count,
  rows: emptyRecord(),
  columns: emptyRecord(),
  v: emptyRecord(),
});

/** `g / √V`, with Adafactor's factored second moment `V`. */
export function scaleByFactoredRms(options: Partial<FactoredHyper> = {}): GradientTransformation<FactoredState> {
  checkKeys("scaleByFactoredRms", options, Object.keys(factoredDefaults));
  const hyper = withDefaults<FactoredHyper>(factoredDefaults, options);
  checkFactored("scaleByFactoredRms", hyper);
  const original = hyper.variant === "original";
  const isFactored = ({ rank, shape }: Tensor) => rank >= 2 && shape.slice(-2).every((n) => n >= hyper.minFactoredDim);
  return {
    init(params) {
      const state = emptyState(0);
      mapTrees((p, path) => {
        const { shape, device } = p;
        const zerosLike = (...of: readonly number[]) => zeros(of, { dtype: accumulationDType(p.dtype), device });
        if (isFactored(p)) {
          state.rows[path] = zerosLike(...shape.slice(0, -1), 1);
          state.columns[path] = zerosLike(...shape.slice(0, -2), 1, shape.at(-1)!);
        } else {
          state.v[path] = zerosLike(...shape);
        }
        return p;
      }, params);
      return state;
    },
    update(grads, state) {
      const count = state.count + 1;
      const keep = 1 - count ** hyper.beta2Decay;
      const next = emptyState(count);
      const updates = mapTrees((g, path) => {
        const eps1 = hyper.eps1 ?? (original ? 1e-30 : precision(g));
        const squared = original ? add(square(g), eps1) : square(g);
        let second: Tensor;
        const rows = own(state.rows, path);
        if (rows === undefined) {
          second = next.v[path] = average(state.v[path]!, squared, keep);
        } else {
          const r = average(rows, mean(squared, { axis: -1, keepDims: true }), keep);
          const c = average(state.columns[path]!, mean(squared, { axis: -2, keepDims: true }), keep);
          next.rows[path] = r;
          next.columns[path] = c;
          const norm = mean(r, { axis: -2, keepDims: true });
          second = mul(div(r, original ? norm : maximum(norm, eps1)), c);
        }
        return div(g, sqrt(original ? second : maximum(second, Math.max(eps1 ** 2, smallest(g)))));
      }, grads);
      return { updates, state: next };
    },
  };
}

/** The rounding of 1. */
const precision = ({ dtype }: Tensor) => (dtype === "float64" ? Number.EPSILON : 2 ** -23);
/** The smallest normal number: below it the root of a second moment would have fewer digits, or be 0. */
const smallest = ({ dtype }: Tensor) => (dtype === "float64" ? 2 ** -1022 : 2 ** -126);

const rms = (x: Tensor) => sqrt(mean(square(x)));

/** Each tensor times the root mean square of its parameters, at least `least`. */
export function scaleByParamRms(
  least = adafactorDefaults.eps2 as number,
): GradientTransformation<Record<string, never>> {
  checkNotNegative("scaleByParamRms", "least", least);
  return stateless((grads, params) => mapTrees((g, p) => mul(g, maximum(rms(p), least)), grads, params));
}

/** Adds `−lr(step)·weightDecay·p`. Its state is the same without decay, which some parameters are excepted from. */
function decayedBy(
  schedule: Schedule,
  weightDecay: number,
  mask: TreeMask | undefined,
): GradientTransformation<{ count: number }> {
  return {
    init: () => ({ count: 0 }),
    update: (grads, { count }, params) => ({
      updates: decayed(grads, params, schedule(count) * weightDecay, mask),
      state: { count: count + 1 },
    }),
  };
}

/**
 * Adafactor as a chain of transforms.
 *
 * @example
 * const transform = adafactor(1e-2, { weightDecay: 0.01 });
 */
export function adafactor(
  learningRate: ScalarOrSchedule,
  options: Partial<Omit<AdafactorHyper, "learningRate">> & DecayMask = {},
): GradientTransformation<readonly TransformState[]> {
  checkKeys("adafactor", options, [...Object.keys(adafactorDefaults), "mask"]);
  const hyper = withDefaults<Omit<AdafactorHyper, "learningRate">>(adafactorDefaults, options);
  checkAdafactor("adafactor", hyper);
  const { eps2, clipThreshold, beta1, weightDecay, beta2Decay, eps1, variant, minFactoredDim } = hyper;
  const schedule = asSchedule(learningRate);
  return chain(
    scaleByFactoredRms({ beta2Decay, eps1, variant, minFactoredDim }) as GradientTransformation,
    clipByBlockRms(clipThreshold),
    scaleByParamRms(eps2),
    scaleByLearningRate((step) => Math.min(schedule(step), 1 / Math.sqrt(step + 1))),
    ...(beta1 > 0 ? [ema(beta1, { debias: false }) as GradientTransformation] : []),
    decayedBy(schedule, weightDecay, options.mask) as GradientTransformation,
  );
}

const adafactorRule: TransformRule<AdafactorHyper> = {
  kind: "adafactor",
  name: "Adafactor",
  defaults: { learningRate: 1e-2, ...adafactorDefaults },
  check: checkAdafactor,
  transform: ({ learningRate, ...hyper }) => adafactor(learningRate, hyper),
};

/**
 * Adafactor with the options of an optimizer; for a matrix rows + columns numbers of state. Of typed arrays `shapes` says which are matrices. It steps
 * with tensor operations, not with a fused kernel.
 *
 * @param params - tensors, or typed arrays, which are changed in place
 * @throws {OptionError} for a hyper-parameter outside its domain or an unknown option
 *
 * @example
 * const optimizer = new Adafactor(params, { learningRate: 1e-2 });
 */
export class Adafactor<P extends Parameter> extends TransformOptimizer<P, AdafactorHyper> {
  constructor(params: Readonly<Record<string, P>>, options: AdafactorOptions = {}) {
    super(adafactorRule, params, options);
  }
}
