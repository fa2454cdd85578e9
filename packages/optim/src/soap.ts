/**
 * SOAP: Adam in the slowly turning eigenbasis of Shampoo's statistics.
 */
import {
  add,
  argsort,
  astype,
  div,
  eigh,
  expand,
  flip,
  gather,
  matmul,
  mul,
  qr,
  scope,
  sqrt,
  square,
  sum,
  type Tensor,
  type TensorTree,
  transpose,
  zeros,
  zerosLike,
} from "@llmeff/tensor";
import { average } from "./adamw.js";
import { checkKeys, checkNotNegative, requireOptions, withDefaults } from "./check.js";
import type { DecayMask } from "./decay.js";
import { gramOf, modeProduct } from "./kronecker.js";
import { type ByPath, batchKey, batchOf, groupBy, itemOf, leavesOf, stateOf, withLeaves } from "./leaves.js";
import { emptyRecord } from "./records.js";
import { asSchedule, type ScalarOrSchedule } from "./schedules.js";
import { checkSoap, type SoapDirectionHyper, type SoapHyper, soapDirectionDefaults } from "./soap-options.js";
import type { Parameter } from "./storage.js";
import { type GradientTransformation, type TransformState, zerosOf } from "./transform.js";
import { TransformOptimizer, type TransformOptions, type TransformRule } from "./transform-optimizer.js";
import { mapTrees } from "./trees.js";

/** Of the axes that are rotated, by their number. */
type Rotations = { readonly [axis: string]: { readonly moment: Tensor; readonly basis: Tensor } };

export interface SoapState {
  readonly [key: string]: TransformState;
  /** Calls so far, the first one included, which changes nothing. */
  readonly count: number;
  /** Averages of the rotated gradients and of their squares, in the form of the parameters. */
  readonly m: TensorTree;
  readonly v: TensorTree;
  /** Second moments `[d, d]` and orthonormal bases, whose columns are in the order of the squares in `v`. */
  readonly rotations: ByPath<Rotations>;
}

/** What a batch has of one axis. */
interface BatchAxis {
  readonly axis: number;
  readonly moment: Tensor;
  readonly basis: Tensor;
}

/**
 * `√(1 − beta2ᵗ)/(1 − beta1ᵗ) · back(m/(√v + eps))`: Adam's averages `m` and `v` of `g' = g ×_i Q_iᵀ`, rotated back by the `Q_i`. After the step
 * `G_i ← beta2 G_i + (1 − beta2) mat_i(g) mat_i(g)ᵀ`, and every `preconditionFrequency` steps one iteration of orthogonal iteration,
 * `Q_i ← qr(G_i Q_i)`, brings the bases nearer to the eigenvectors.
 *
 * The first call only makes `G_i` and `Q_i`: its updates are 0 and it isn't a step of the bias corrections. Tensors of one axis, and axes
 * longer than `maxPrecondDim`, aren't rotated; without any rotated axis this is Adam.
 *
 * For matrices, where Shampoo's roots are too dear or its learning rate too delicate: the decompositions are QR every tenth step, and Adam's
 * learning rates serve. State of an m × n matrix: `2mn + 2(m² + n²)` numbers.
 *
 * @see Vyas et al., _SOAP: Improving and Stabilizing Shampoo using Adam_, arXiv:2409.11321
 */
export function scaleBySoap(options: Partial<SoapDirectionHyper> = {}): GradientTransformation<SoapState> {
  checkKeys("scaleBySoap", options, Object.keys(soapDirectionDefaults));
  const hyper = withDefaults<SoapDirectionHyper>(soapDirectionDefaults, options);
  checkSoap("scaleBySoap", hyper);
  return {
    init: (params) => ({
      count: 0,
      m: zerosOf(params),
      v: zerosOf(params),
      rotations: Object.fromEntries([...leavesOf(params)].map(([path, x]) => [path, emptyRotations(x, hyper)])),
    }),
    update(grads, state) {
      const count = state.count + 1;
      const first = count === 1;
      const [ms, vs] = [leavesOf(state.m), leavesOf(state.v)];
      const updates = new Map<string, Tensor>();
      const nextM = new Map<string, Tensor>();
      const nextV = new Map<string, Tensor>();
      const rotations = emptyRecord<Rotations>();
      for (const group of groupBy(leavesOf(grads), ([, grad]) => batchKey(grad))) {
        const old = group.map(([path]) => stateOf("scaleBySoap", state.rotations, path));
        const next = scope(() => {
          const g = batchOf(group.map(([, grad]) => grad));
          const axes = Object.keys(old[0]!).map((axis) => ({
            axis: Number(axis),
            moment: batchOf(old.map((rotation) => rotation[axis]!.moment)),
            basis: batchOf(old.map((rotation) => rotation[axis]!.basis)),
          }));
          const moments = {
            m: batchOf(group.map(([path]) => ms.get(path)!)),
            v: batchOf(group.map(([path]) => vs.get(path)!)),
          };
          return first
            ? { ...moments, u: zerosLike(g), axes: begin(g, axes, hyper) }
            : step(g, moments, axes, count - 1, hyper);
        });
        for (const [i, [path]] of group.entries()) {
          updates.set(path, itemOf(next.u, i));
          nextM.set(path, itemOf(next.m, i));
          nextV.set(path, itemOf(next.v, i));
          rotations[path] = Object.fromEntries(
            next.axes.map(({ axis, moment, basis }) => [axis, { moment: itemOf(moment, i), basis: itemOf(basis, i) }]),
          );
        }
      }
      return {
        updates: withLeaves(grads, updates),
        state: { count, m: withLeaves(state.m, nextM), v: withLeaves(state.v, nextV), rotations },
      };
    },
  };
}

function emptyRotations(x: Tensor, { maxPrecondDim }: SoapDirectionHyper): Rotations {
  const axes = x.rank < 2 ? [] : [...x.shape.entries()].filter(([, size]) => size <= maxPrecondDim);
  const square = (size: number) => zeros([size, size], { dtype: x.dtype, device: x.device });
  return Object.fromEntries(axes.map(([axis, size]) => [axis, { moment: square(size), basis: square(size) }]));
}

/** The statistics of the first gradient, and their eigenvectors by falling eigenvalue. */
function begin(g: Tensor, axes: readonly BatchAxis[], { beta2 }: SoapDirectionHyper): BatchAxis[] {
  return axes.map(({ axis }) => {
    const moment = mul(gramOf(g, axis), 1 - beta2);
    const { vectors } = eigh(astype(moment, "float64"));
    return { axis, moment, basis: astype(flip(vectors, -1), g.dtype) };
  });
}

function step(
  g: Tensor,
  old: { m: Tensor; v: Tensor },
  axes: readonly BatchAxis[],
  t: number,
  { beta1, beta2, eps, preconditionFrequency }: SoapDirectionHyper,
): { u: Tensor; m: Tensor; v: Tensor; axes: BatchAxis[] } {
  const rotated = rotate(g, axes, "forward");
  const m = average(old.m, rotated, beta1);
  const v = average(old.v, square(rotated), beta2);
  const correction = Math.sqrt(1 - beta2 ** t) / (1 - beta1 ** t);
  const u = rotate(mul(div(m, add(sqrt(v), eps)), correction), axes, "back");
  const seen = axes.map(({ axis, moment, basis }) => ({
    axis,
    basis,
    moment: average(moment, gramOf(g, axis), beta2),
  }));
  if (t % preconditionFrequency !== 0) return { u, m, v, axes: seen };
  const turned = seen.map(turn);
  return {
    u,
    m: rotate(rotate(m, seen, "back"), turned, "forward"),
    v: turned.reduce((x, { axis, order }) => permuteAxis(x, order, axis), v),
    axes: turned,
  };
}

function rotate(x: Tensor, axes: readonly BatchAxis[], way: "forward" | "back"): Tensor {
  return axes.reduce((y, { axis, basis }) => modeProduct(y, way === "forward" ? transpose(basis) : basis, axis), x);
}

/** One orthogonal iteration from the columns in the order of their estimated eigenvalues, which is returned. */
function turn({ axis, moment, basis }: BatchAxis): BatchAxis & { order: Tensor } {
  const product = matmul(moment, basis);
  const estimates = sum(mul(basis, product), { axis: -2 });
  const order = argsort(estimates, { descending: true });
  return { axis, moment, order, basis: qr(permuteAxis(product, order, 1)).q };
}

/** Entries along an axis (the batch's not counted) in another order, `[N, d]`, one for each of the batch. */
function permuteAxis(x: Tensor, order: Tensor, axis: number): Tensor {
  const aligned = order.reshape(x.shape.map((size, i) => (i === 0 || i === axis + 1 ? size : 1)));
  return gather(x, axis + 1, expand(aligned, x.shape));
}

/** Options of `soap`. */
export interface SoapTransformOptions extends Partial<Omit<SoapHyper, "learningRate">>, DecayMask {}

/**
 * SOAP: `p ← p − lr · scaleBySoap(g)`, then `p ← p − lr · weightDecay · p`. The first call changes nothing, and takes no step of the schedule.
 *
 * @example
 * const transform = soap(3e-3, { preconditionFrequency: 10, mask: (_path, p) => p.rank >= 2 });
 */
export function soap(
  learningRate: ScalarOrSchedule,
  options: SoapTransformOptions = {},
): GradientTransformation<SoapState> {
  requireOptions("soap", options);
  const { mask = () => true, weightDecay = 0.01, ...own } = options;
  checkNotNegative("soap", "weightDecay", weightDecay);
  if (typeof learningRate !== "function") checkNotNegative("soap", "learningRate", learningRate);
  const schedule = asSchedule(learningRate);
  const direction = scaleBySoap(own);
  return {
    init: (params) => direction.init(params),
    update(grads, state, params) {
      const result = direction.update(grads, state, params);
      if (state.count === 0) return result;
      const rate = schedule(state.count - 1);
      checkNotNegative(`soap] [step ${state.count - 1}`, "learningRate", rate);
      // (p − lr u) (1 − lr wd) − p
      const descend = (u: Tensor, p: Tensor, path: string) =>
        mask(path, p) ? mul(add(mul(u, 1 - rate * weightDecay), mul(p, weightDecay)), -rate) : mul(u, -rate);
      return { updates: mapTrees(descend, result.updates, params), state: result.state };
    },
  };
}

const soapRule: TransformRule<SoapHyper> = {
  kind: "soap",
  name: "Soap",
  defaults: { learningRate: 3e-3, weightDecay: 0.01, ...soapDirectionDefaults },
  check: checkSoap,
  batched: true,
  transform: ({ learningRate, ...hyper }) => soap(learningRate, hyper),
};

export type SoapOptions = TransformOptions<SoapHyper>;

/**
 * SOAP (see `scaleBySoap`) as an optimizer. Each parameter's first gradient makes its statistics and changes nothing.
 *
 * @example
 * const optimizer = new Soap(params, { learningRate: 3e-3, decay: "matrices" });
 */
export class Soap<P extends Parameter> extends TransformOptimizer<P, SoapHyper> {
  constructor(params: Readonly<Record<string, P>>, options: SoapOptions = {}) {
    super(soapRule, params, options);
  }
}
