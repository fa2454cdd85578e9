/**
 * rfdSON: robust Frequent Directions as an online Newton method for networks, the baseline of SONew's experiments.
 */
import { mul, type Tensor, type TensorTree } from "@llmeff/tensor";
import { average } from "./adamw.js";
import {
  checkBeta,
  checkCount,
  checkKeys,
  checkNotNegative,
  checkPositive,
  requireOptions,
  withDefaults,
} from "./check.js";
import { type DecayMask, withDecay } from "./decay.js";
import { type ByPath, batchKey, batchOf, groupBy, itemOf, leavesOf, stateOf, withLeaves } from "./leaves.js";
import { emptyRecord } from "./records.js";
import type { ScalarOrSchedule } from "./schedules.js";
import type { Parameter } from "./storage.js";
import { type GradientTransformation, type TransformState, zerosOf } from "./transform.js";
import { TransformOptimizer, type TransformOptions, type TransformRule } from "./transform-optimizer.js";
import { mapTrees } from "./trees.js";
import {
  addRows,
  applySpectrum,
  batchOfVectorSketches,
  emptyVectorSketch,
  itemOfVectorSketches,
  type VectorSketch,
} from "./vector-sketch.js";

export interface RfdSonDirectionHyper {
  /** Decay of the average of the gradients, which isn't bias-corrected. Default 0.9. */
  beta1: number;
  /** Directions kept of each tensor: so many numbers a parameter. Default 4. */
  rank: number;
  /** What `α` begins with. Default 0.1. */
  alpha: number;
  /** Singular values of at most this times the largest count as 0. Default 1e-6. */
  rankTol: number;
}

export interface RfdSonHyper extends RfdSonDirectionHyper {
  /** Default 1e-3. */
  learningRate: ScalarOrSchedule;
  /** Decoupled. Default 0. */
  weightDecay: number;
}

export const rfdSonDefaults = {
  beta1: 0.9,
  rank: 4,
  alpha: 0.1,
  rankTol: 1e-6,
} as const satisfies RfdSonDirectionHyper;

export function checkRfdSon(where: string, hyper: RfdSonDirectionHyper): void {
  checkBeta(where, "beta1", hyper.beta1);
  checkCount(where, "rank", hyper.rank, 1);
  checkPositive(where, "alpha", hyper.alpha);
  checkNotNegative(where, "rankTol", hyper.rankTol);
}

export interface RfdSonState {
  readonly [key: string]: TransformState;
  readonly count: number;
  /** Running average of the gradients, in the form of the parameters. */
  readonly m: TensorTree;
  readonly sketches: ByPath<VectorSketch>;
}

/**
 * `m ← beta1 m + (1 − beta1) g`; rows `B ← [B; √(1/8 + 1/t) g]`, of which the SVD keeps `rank` with `σ_i² − σ²_{rank+1}`, and
 * `α ← α + σ²_{rank+1}/2`; passes on `(α I + Bᵀ B)⁻¹ m = m/α − Bᵀ(I + B Bᵀ/α)⁻¹ B m/α²`, tensor by tensor.
 *
 * A baseline: SONew reaches lower losses with 3 numbers a parameter. As a Newton method it needs small learning rates at small gradients, and
 * gains little from a rank above 4.
 *
 * State: `rank + 1` numbers a parameter, and `rank + 1` a tensor.
 *
 * @see Luo et al., _Robust Frequent Directions with Application in Online Learning_, JMLR 2019; Devvrit et al., arXiv:2311.10085 (baseline)
 */
export function scaleByRfdSon(options: Partial<RfdSonDirectionHyper> = {}): GradientTransformation<RfdSonState> {
  checkKeys("scaleByRfdSon", options, Object.keys(rfdSonDefaults));
  const hyper = withDefaults<RfdSonDirectionHyper>(rfdSonDefaults, options);
  checkRfdSon("scaleByRfdSon", hyper);
  const directions = (x: Tensor) => Math.min(hyper.rank, x.size);
  return {
    init: (params) => ({
      count: 0,
      m: zerosOf(params),
      sketches: Object.fromEntries(
        [...leavesOf(params)].map(([path, x]) => [path, emptyVectorSketch(x, directions(x))]),
      ),
    }),
    update(grads, state) {
      const t = state.count + 1;
      const m = mapTrees((g, old) => average(old, g, hyper.beta1), grads, state.m);
      const means = leavesOf(m);
      const updates = new Map<string, Tensor>();
      const sketches = emptyRecord<VectorSketch>();
      const entries = [...leavesOf(grads)].map(([path, grad]) => ({ path, grad, flat: grad.reshape([grad.size]) }));
      for (const group of groupBy(entries, ({ flat }) => batchKey(flat))) {
        const rows = mul(batchOf(group.map(({ flat }) => flat)), Math.sqrt(1 / 8 + 1 / t));
        const old = batchOfVectorSketches(group.map(({ path }) => stateOf("scaleByRfdSon", state.sketches, path)));
        const sketch = addRows(old, rows, directions(group[0]!.flat), hyper.rankTol);
        const mean = batchOf(group.map(({ path, flat }) => means.get(path)!.reshape(flat.shape)));
        const u = applySpectrum(sketch, mean, { offset: hyper.alpha, kappa: 0.5, spectrum: "inverse" });
        for (const [i, { path, grad }] of group.entries()) {
          updates.set(path, itemOf(u, i, grad.shape));
          sketches[path] = itemOfVectorSketches(sketch, i);
        }
      }
      return { updates: withLeaves(grads, updates), state: { count: t, m, sketches } };
    },
  };
}

/** Options of `rfdSon`. */
export interface RfdSonTransformOptions extends Partial<Omit<RfdSonHyper, "learningRate">>, DecayMask {}

/**
 * rfdSON as a chain of transforms: `u = −lr · (scaleByRfdSon(g) + weightDecay · p)`.
 *
 * @example
 * const transform = rfdSon(1e-3, { rank: 4 });
 */
export function rfdSon(
  learningRate: ScalarOrSchedule,
  options: RfdSonTransformOptions = {},
): GradientTransformation<readonly TransformState[]> {
  requireOptions("rfdSon", options);
  const { mask, weightDecay = 0, ...direction } = options;
  return withDecay(scaleByRfdSon(direction), { weightDecay, decoupled: true, mask }, learningRate);
}

const rfdSonRule: TransformRule<RfdSonHyper> = {
  kind: "rfd-son",
  name: "RfdSon",
  defaults: { learningRate: 1e-3, weightDecay: 0, ...rfdSonDefaults },
  check: checkRfdSon,
  batched: true,
  transform: ({ learningRate, ...hyper }) => rfdSon(learningRate, hyper),
};

export type RfdSonOptions = TransformOptions<RfdSonHyper>;

/**
 * rfdSON (see `scaleByRfdSon`) as an optimizer.
 *
 * @example
 * const optimizer = new RfdSon(params, { learningRate: 1e-3, rank: 4 });
 */
export class RfdSon<P extends Parameter> extends TransformOptimizer<P, RfdSonHyper> {
  constructor(params: Readonly<Record<string, P>>, options: RfdSonOptions = {}) {
    super(rfdSonRule, params, options);
  }
}
