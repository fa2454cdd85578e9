/**
 * The online convex suite of Sketchy (arXiv:2302.03764, section 6): algorithms on one vector, whose sketch holds the largest directions of its
 * gradients. Tensors are seen as vectors.
 */
import { add, div, equal, mul, sqrt, square, type Tensor, where, zeros, zerosLike } from "@llmeff/tensor";
import {
  checkCount,
  checkKeys,
  checkNotNegative,
  checkOneOf,
  checkPositive,
  requireOptions,
  withDefaults,
} from "./check.js";
import { type DecayMask, decayed } from "./decay.js";
import type { Sketch } from "./frequent-directions.js";
import { type ByPath, batchKey, batchOf, groupBy, itemOf, leavesOf, stateOf, withLeaves } from "./leaves.js";
import { emptyRecord } from "./records.js";
import { asSchedule, type ScalarOrSchedule } from "./schedules.js";
import type { Parameter } from "./storage.js";
import type { GradientTransformation, TransformState } from "./transform.js";
import { TransformOptimizer, type TransformOptions, type TransformRule } from "./transform-optimizer.js";
import {
  addRows,
  applySpectrum,
  batchOfVectorSketches,
  emptyVectorSketch,
  itemOfVectorSketches,
  type Spectrum,
  spread,
  type VectorSketch,
} from "./vector-sketch.js";

const algorithms = ["sAdagrad", "rfdSon", "fdSon", "adaFd", "ogd", "adagrad"] as const;

/**
 * With the sketch's orthonormal directions `P` and values `e`, the escaped mass `α = delta + κ Σ ρ²`, and
 * `u = Pᵀ(f(α + e²) ⊙ P g) + f(α) (g − PᵀP g)`:
 *
 * - `"sAdagrad"`: κ = 1, `f(x) = x^(−1/2)`, step `lr · u`
 * - `"rfdSon"`: κ = ½, `f(x) = 1/x`, gradients enter the sketch times `1/√(t lr)`, step `u`; with `lr = 0` none enters and the step is 0
 * - `"fdSon"`: κ = 0, `f(x) = 1/x`, gradients enter times `1/√(√t lr)`, step `u`, and so with `lr = 0`
 * - `"adaFd"`: κ = 0, step `lr · (g − Pᵀ(e/(delta + e) ⊙ P g)) / delta`
 * - `"ogd"`: step `lr/√(t + delta) · g`
 * - `"adagrad"`: step `lr · g/√(Σ g²)`, element by element
 */
export type OnlineConvexAlgorithm = (typeof algorithms)[number];

export interface OnlineConvexDirectionHyper {
  algorithm: OnlineConvexAlgorithm;
  /** What `α` begins with, or is; `"adaFd"` needs more than 0. Default 0. */
  delta: number;
  /** Rows of the sketch, of which one takes the new gradient. Default 10. */
  sketchSize: number;
  /** Singular values of at most this times the largest count as 0. Default 1e-6. */
  rankTol: number;
}

export interface OnlineConvexHyper extends OnlineConvexDirectionHyper {
  /** Default 0.1. */
  learningRate: ScalarOrSchedule;
  /** Decoupled. Default 0. */
  weightDecay: number;
}

export const onlineConvexDefaults = {
  algorithm: "sAdagrad",
  delta: 0,
  sketchSize: 10,
  rankTol: 1e-6,
} as const satisfies OnlineConvexDirectionHyper;

export function checkOnlineConvex(where: string, hyper: OnlineConvexDirectionHyper): void {
  checkOneOf(where, "algorithm", hyper.algorithm, algorithms);
  if (hyper.algorithm === "adaFd") checkPositive(where, "delta", hyper.delta);
  else checkNotNegative(where, "delta", hyper.delta);
  checkCount(where, "sketchSize", hyper.sketchSize, 1);
  checkNotNegative(where, "rankTol", hyper.rankTol);
}

interface SketchRule {
  /** What a gradient enters the sketch with at step t. */
  readonly weight: (t: number, learningRate: number) => number;
  /** Whether the learning rate is in the weights instead of the step. */
  readonly newton: boolean;
  /** Share of what is deflated that is added to `α`. */
  readonly kappa: number;
  readonly spectrum: Spectrum;
}

const sketchRules: Partial<Record<OnlineConvexAlgorithm, SketchRule>> = {
  sAdagrad: { kappa: 1, spectrum: "rsqrt", weight: () => 1, newton: false },
  rfdSon: { kappa: 0.5, spectrum: "inverse", weight: (t, lr) => 1 / Math.sqrt(t * lr), newton: true },
  fdSon: { kappa: 0, spectrum: "inverse", weight: (t, lr) => 1 / Math.sqrt(Math.sqrt(t) * lr), newton: true },
  adaFd: { kappa: 0, spectrum: "inverse", weight: () => 1, newton: false },
};

export interface OnlineConvexState {
  readonly [key: string]: TransformState;
  readonly count: number;
  /** Of the sketching algorithms. */
  readonly sketches: ByPath<VectorSketch>;
  /** Of `"adagrad"`: `Σ g²`. */
  readonly squares: ByPath<Tensor>;
}

/** Directions that a sketch of `sketchSize` rows keeps of a vector: one row is the new gradient's, and there are no more than the vector has numbers. */
const directionsOf = (x: Tensor, { sketchSize }: OnlineConvexDirectionHyper) => Math.min(sketchSize, x.size) - 1;

/** Options of `onlineConvex`. */
export interface OnlineConvexTransformOptions extends Partial<Omit<OnlineConvexHyper, "learningRate">>, DecayMask {}

/**
 * The algorithms of `OnlineConvexAlgorithm`, learning rate included: `−η u − lr · weightDecay · p`.
 *
 * For streams of convex losses, such as online logistic regression; of a network's tensors each is a vector of its own, for which
 * `scaleByRfdSon` is the form with momentum. State: `(ℓ − 1)(d + 1) + 1` numbers with a sketch, d for `"adagrad"`.
 *
 * @see Feinberg et al., arXiv:2302.03764, section 6; Luo et al., _Robust Frequent Directions with Application in Online Learning_, JMLR 2019
 *
 * @example
 * const transform = onlineConvex(0.1, { algorithm: "sAdagrad", sketchSize: 10 });
 */
export function onlineConvex(
  learningRate: ScalarOrSchedule,
  options: OnlineConvexTransformOptions = {},
): GradientTransformation<OnlineConvexState> {
  requireOptions("onlineConvex", options);
  const { mask, weightDecay = 0, ...own } = options;
  checkKeys("onlineConvex", own, Object.keys(onlineConvexDefaults));
  const hyper = withDefaults<OnlineConvexDirectionHyper>(onlineConvexDefaults, own);
  checkOnlineConvex("onlineConvex", hyper);
  checkNotNegative("onlineConvex", "weightDecay", weightDecay);
  if (typeof learningRate !== "function") checkNotNegative("onlineConvex", "learningRate", learningRate);
  const schedule = asSchedule(learningRate);
  const rule = sketchRules[hyper.algorithm];
  return {
    init(params) {
      const leaves = [...leavesOf(params)];
      const each = <S extends TransformState>(wanted: boolean, make: (x: Tensor) => S): ByPath<S> =>
        wanted ? Object.fromEntries(leaves.map(([path, x]) => [path, make(x)])) : {};
      return {
        count: 0,
        sketches: each(rule !== undefined, (x) => emptyVectorSketch(x, directionsOf(x, hyper))),
        squares: each(hyper.algorithm === "adagrad", (x) => zeros([x.size], x)),
      };
    },
    update(grads, state, params) {
      const t = state.count + 1;
      const rate = schedule(state.count);
      checkNotNegative(`onlineConvex] [step ${state.count}`, "learningRate", rate);
      const updates = new Map<string, Tensor>();
      const sketches = emptyRecord<VectorSketch>();
      const squares = emptyRecord<Tensor>();
      const entries = [...leavesOf(grads)].map(([path, grad]) => ({ path, grad, flat: grad.reshape([grad.size]) }));
      for (const group of groupBy(entries, ({ flat }) => batchKey(flat))) {
        const g = batchOf(group.map(({ flat }) => flat));
        let u: Tensor;
        if (rule !== undefined) {
          const old = batchOfVectorSketches(group.map(({ path }) => stateOf("onlineConvex", state.sketches, path)));
          const isStill = rule.newton && rate === 0;
          const sketch = isStill
            ? old
            : addRows(old, mul(g, rule.weight(t, rate)), directionsOf(group[0]!.flat, hyper), hyper.rankTol);
          u = isStill ? zerosLike(g) : mul(sketchedStep(sketch, g, rule, hyper), rule.newton ? -1 : -rate);
          for (const [i, { path }] of group.entries()) sketches[path] = itemOfVectorSketches(sketch, i);
        } else if (hyper.algorithm === "adagrad") {
          const sums = add(batchOf(group.map(({ path }) => stateOf("onlineConvex", state.squares, path))), square(g));
          u = mul(div(g, sqrt(where(equal(sums, 0), 1, sums))), -rate);
          for (const [i, { path }] of group.entries()) squares[path] = itemOf(sums, i);
        } else u = mul(g, -rate / Math.sqrt(t + hyper.delta));
        for (const [i, { path, grad }] of group.entries()) updates.set(path, itemOf(u, i, grad.shape));
      }
      const steps = decayed(withLeaves(grads, updates), params, rate * weightDecay, mask);
      return { updates: steps, state: { count: t, sketches, squares } };
    },
  };
}

function sketchedStep(
  sketch: Sketch,
  g: Tensor,
  rule: SketchRule,
  { algorithm, delta }: OnlineConvexDirectionHyper,
): Tensor {
  if (algorithm !== "adaFd") return applySpectrum(sketch, g, { offset: delta, ...rule });
  const shares = div(sketch.s, add(sketch.s, delta));
  return div(g.sub(spread(sketch.u, shares, g)), delta);
}

const onlineConvexRule: TransformRule<OnlineConvexHyper> = {
  kind: "online-convex",
  name: "OnlineConvex",
  defaults: { learningRate: 0.1, weightDecay: 0, ...onlineConvexDefaults },
  check: checkOnlineConvex,
  batched: true,
  transform: ({ learningRate, ...hyper }) => onlineConvex(learningRate, hyper),
};

export type OnlineConvexOptions = TransformOptions<OnlineConvexHyper>;

/**
 * The algorithms of the online convex suite (see `onlineConvex`) as an optimizer.
 *
 * @example
 * const optimizer = new OnlineConvex({ w }, { algorithm: "rfdSon", learningRate: 0.1, delta: 0.1 });
 */
export class OnlineConvex<P extends Parameter> extends TransformOptimizer<P, OnlineConvexHyper> {
  constructor(params: Readonly<Record<string, P>>, options: OnlineConvexOptions = {}) {
    super(onlineConvexRule, params, options);
  }
}
