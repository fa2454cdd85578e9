/**
 * PSGD with Kronecker-factored whitening: preconditioners fitted by multiplicative steps, without any decomposition.
 */
import {
  abs,
  add,
  argMax,
  clip,
  div,
  expand,
  eye,
  gather,
  matmul,
  max,
  maximum,
  mean,
  mul,
  ones,
  pow,
  prod,
  randomNormal,
  scope,
  sqrt,
  square,
  stack,
  sub,
  sum,
  type Tensor,
  type TensorTree,
  transpose,
  zeros,
} from "@llmeff/tensor";
import { average } from "./adamw.js";
import { checkKeys, requireOptions, withDefaults } from "./check.js";
import { type DecayMask, withDecay } from "./decay.js";
import { modeProduct, unfold } from "./kronecker.js";
import { type ByPath, batchKey, batchOf, groupBy, itemOf, leavesOf, stateOf, withLeaves } from "./leaves.js";
import {
  checkPsgdKron,
  type PsgdKronDirectionHyper,
  type PsgdKronHyper,
  psgdKronDirectionDefaults,
} from "./psgd-kron-options.js";
import { emptyRecord } from "./records.js";
import type { ScalarOrSchedule } from "./schedules.js";
import type { Parameter } from "./storage.js";
import { type GradientTransformation, type TransformState, zerosOf } from "./transform.js";
import { TransformOptimizer, type TransformOptions, type TransformRule } from "./transform-optimizer.js";
import { mapTrees } from "./trees.js";

/** Of one tensor, by axis: `q` `[d, d]` or a diagonal `[d]`, and `curvature` `[]`, the bound that normalises its steps. */
type KronFactors = readonly { readonly q: Tensor; readonly curvature: Tensor }[];

export interface PsgdKronState {
  readonly [key: string]: TransformState;
  readonly count: number;
  /** Absent without momentum. */
  readonly m: TensorTree;
  readonly factors: ByPath<KronFactors>;
}

/** Steps between two of the rescalings that give all factors of a tensor one range. */
const balanceEvery = 100;

/**
 * `P m` with `P = Q₁ᵀQ₁ ⊗ … ⊗ Q_KᵀQ_K` fitted so that `E[(P g)(P g)ᵀ] = I`: with `h = P (g + noise)`, `T_i = mat_i(h) mat_i(h)ᵀ` and
 * `t_i = size/d_i`, `Q_i ← Q_i − preconditionerRate/L_i · (Q_i T_i − t_i Q_i)`, where `L_i` is a running bound of `‖T_i‖ + t_i`. Updates are clipped by
 * root mean square and then by number. Axes of size 1 vanish.
 *
 * For those who want a whitening optimizer without decompositions: its step is matrix products and nothing else. The fit is a stochastic one and
 * lags behind where gradients change quickly. State of an m × n matrix, m ≤ n: `mn + m² + n + 2` numbers (`maxSkew` 1).
 *
 * @see Li, _Preconditioned Stochastic Gradient Descent_, arXiv:1512.04202; its PSGD-Kron whitening with dQ = Q E Q
 */
export function scaleByPsgdKron(options: Partial<PsgdKronDirectionHyper> = {}): GradientTransformation {
  checkKeys("scaleByPsgdKron", options, Object.keys(psgdKronDirectionDefaults));
  const hyper = withDefaults<PsgdKronDirectionHyper>(psgdKronDirectionDefaults, options);
  checkPsgdKron("scaleByPsgdKron", hyper);
  return {
    init: (params) => ({
      count: 0,
      ...(hyper.momentum > 0 ? { m: zerosOf(params) } : {}),
      factors: Object.fromEntries([...leavesOf(params)].map(([path, x]) => [path, initialFactors(x, hyper)])),
    }),
    update(grads, state) {
      const old = state as PsgdKronState;
      const count = old.count + 1;
      // The running mean at first, so that early gradients aren't shrunk.
      const decay = Math.min((count - 1) / count, hyper.momentum);
      const m = hyper.momentum > 0 ? mapTrees((g, before) => average(before, g, decay), grads, old.m) : undefined;
      const means = leavesOf(m ?? grads);
      const updates = new Map<string, Tensor>();
      const factors = emptyRecord<KronFactors>();
      const entries = [...leavesOf(grads)].map(([path, g]) => ({ path, g, seen: withoutUnits(g) }));
      for (const group of groupBy(entries, ({ seen }) => batchKey(seen))) {
        const { kron, u } = scope(() => {
          const mean = batchOf(group.map(({ path, seen }) => means.get(path)!.reshape(seen.shape)));
          let kron = batchOfFactors(group.map(({ path }) => stateOf("scaleByPsgdKron", old.factors, path)));
          if ((count - 1) % hyper.updateEvery === 0) {
            const sample = hyper.whiten === "momentum" ? mean : batchOf(group.map(({ seen }) => seen));
            kron = fit(kron, sample, hyper, { seed: hyper.seed, stream: count });
            if (count % balanceEvery === 0) kron = balanced(kron);
          }
          return { kron, u: clipped(precondition(kron, mean), hyper) };
        });
        for (const [j, { path, g }] of group.entries()) {
          updates.set(path, itemOf(u, j, g.shape));
          factors[path] = kron.map(({ q, curvature }) => ({ q: itemOf(q, j), curvature: itemOf(curvature, j) }));
        }
      }
      return { updates: withLeaves(grads, updates), state: { count, ...(m ? { m } : {}), factors } };
    },
  };
}

function withoutUnits(x: Tensor): Tensor {
  const shape = x.shape.filter((size) => size !== 1);
  return x.reshape(shape.length === 0 ? [1] : shape);
}

function initialFactors(x: Tensor, { initScale, maxSize, maxSkew }: PsgdKronDirectionHyper): KronFactors {
  const { shape, dtype, device, size } = withoutUnits(x);
  const scale = initScale ** (1 / shape.length);
  return shape.map((d) => {
    const dense = d > 1 && d <= maxSize && d * d <= maxSkew * size;
    const unit = dense ? eye(d, undefined, { dtype, device }) : ones([d], { dtype, device });
    return { q: mul(unit, scale), curvature: zeros([], { dtype, device }) };
  });
}

function batchOfFactors(factors: readonly KronFactors[]): { q: Tensor; curvature: Tensor }[] {
  return factors[0]!.map((_, axis) => ({
    q: batchOf(factors.map((own) => own[axis]!.q)),
    curvature: batchOf(factors.map((own) => own[axis]!.curvature)),
  }));
}

const isDense = (q: Tensor) => q.rank === 3;

/** A vector for each of a batch, `[N, d]`, along an axis of `[N, d1, …, dK]`. */
function along(vector: Tensor, axis: number, like: Tensor): Tensor {
  return vector.reshape(like.shape.map((size, i) => (i === 0 || i === axis + 1 ? size : 1)));
}

function precondition(kron: KronFactors, x: Tensor): Tensor {
  return kron.reduce<Tensor>(
    (y, { q }, axis) =>
      isDense(q) ? modeProduct(y, matmul(transpose(q), q), axis) : mul(y, along(square(q), axis, y)),
    x,
  );
}

/** One step of every factor. */
function fit(
  kron: KronFactors,
  g: Tensor,
  { preconditionerRate, betaL, damping }: PsgdKronDirectionHyper,
  key: { seed: number; stream: number },
): { q: Tensor; curvature: Tensor }[] {
  // The same for all of a batch: what a parameter gets doesn't depend on those beside it.
  const noise = randomNormal(key, [1, ...g.shape.slice(1)], { dtype: g.dtype, device: g.device });
  const size = add(mul(abs(g), g.dtype === "float64" ? 2 ** -52 : 2 ** -23), damping);
  const h = precondition(kron, add(g, mul(noise, size)));
  const elements = g.size / g.shape[0]!;
  return kron.map(({ q, curvature }, axis) => {
    const rows = unfold(h, axis);
    const share = elements / q.shape[1]!;
    const found = isDense(q) ? matmul(rows, transpose(rows)) : sum(square(rows), { axis: -1 });
    const bound = add(isDense(q) ? normBelow(found) : max(found, { axis: -1 }), share);
    const next = maximum(add(mul(curvature, betaL), mul(bound, 1 - betaL)), bound);
    const rate = div(preconditionerRate, next).reshape(isDense(q) ? [-1, 1, 1] : [-1, 1]);
    const gradient = isDense(q) ? sub(matmul(q, found), mul(q, share)) : mul(q, sub(found, share));
    return { q: sub(q, mul(gradient, rate)), curvature: next };
  });
}

/** A lower bound of the spectral norm of positive semi-definite matrices that is rarely far off: `‖A a‖/‖a‖` for the longest row `a`. `[N]` */
function normBelow(a: Tensor): Tensor {
  const lengths = sum(square(a), { axis: -1 });
  const longest = argMax(lengths, { axis: -1 }).reshape([-1, 1, 1]);
  const row = gather(a, 1, expand(longest, [a.shape[0]!, 1, a.shape[2]!]));
  const image = sqrt(sum(square(matmul(row, a)), { axis: [-2, -1] }));
  return div(image, maximum(sqrt(sum(square(row), { axis: [-2, -1] })), smallest));
}

const smallest = 1e-18;

/** The same preconditioner, with factors whose largest numbers are equal: lest one overflows while another vanishes. */
function balanced(kron: KronFactors): { q: Tensor; curvature: Tensor }[] {
  if (kron.length === 1) return [...kron];
  const norms = kron.map(({ q }) => max(abs(q.reshape([q.shape[0]!, -1])), { axis: -1 }));
  const middle = pow(prod(stack(norms), { axis: 0 }), 1 / norms.length);
  return kron.map(({ q, curvature }, axis) => {
    const factor = div(middle, norms[axis]!).reshape(isDense(q) ? [-1, 1, 1] : [-1, 1]);
    return { q: mul(q, factor), curvature };
  });
}

function clipped(u: Tensor, { clipRms, clipMax }: PsgdKronDirectionHyper): Tensor {
  const axes = u.shape.slice(1).map((_, axis) => axis + 1);
  const rms = sqrt(mean(square(u), { axis: axes, keepDims: true }));
  return clip(div(u, maximum(div(rms, clipRms), 1)), -clipMax, clipMax);
}

/** Options of `psgdKron`. */
export interface PsgdKronTransformOptions extends Partial<Omit<PsgdKronHyper, "learningRate">>, DecayMask {}

/**
 * PSGD-Kron as a chain of transforms: `u = −lr · (scaleByPsgdKron(g) + weightDecay · p)`.
 *
 * @example
 * const transform = psgdKron(3e-4, { updateEvery: 10 });
 */
export function psgdKron(
  learningRate: ScalarOrSchedule,
  options: PsgdKronTransformOptions = {},
): GradientTransformation<readonly TransformState[]> {
  requireOptions("psgdKron", options);
  const { mask, weightDecay = 0, ...direction } = options;
  return withDecay(scaleByPsgdKron(direction), { weightDecay, decoupled: true, mask }, learningRate);
}

const psgdKronRule: TransformRule<PsgdKronHyper> = {
  kind: "psgd-kron",
  name: "PsgdKron",
  defaults: { learningRate: 3e-4, weightDecay: 0, ...psgdKronDirectionDefaults },
  check: checkPsgdKron,
  batched: true,
  transform: ({ learningRate, ...hyper }) => psgdKron(learningRate, hyper),
};

export type PsgdKronOptions = TransformOptions<PsgdKronHyper>;

/** PSGD-Kron (see `scaleByPsgdKron`) as an optimizer. */
export class PsgdKron<P extends Parameter> extends TransformOptimizer<P, PsgdKronHyper> {
  constructor(params: Readonly<Record<string, P>>, options: PsgdKronOptions = {}) {
    super(psgdKronRule, params, options);
  }
}
