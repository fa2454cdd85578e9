/**
 * Tridiagonal SONew as a gradient transform, written with tensor operations straight from the formulas: the independent twin of the fused
 * kernel behind `Sonew`.
 */
import {
  abs,
  add,
  astype,
  concat,
  div,
  expand,
  full,
  lessEqual,
  max,
  maximum,
  mul,
  permute,
  slice,
  sqrt,
  square,
  sub,
  sum,
  type Tensor,
  type TensorTree,
  where,
  zerosLike,
} from "@llmeff/tensor";
import { average } from "./adamw.js";
import { checkKeys, withDefaults } from "./check.js";
import { chainLength } from "./fused-sonew.js";
import { asSchedule, type ScalarOrSchedule } from "./schedules.js";
import { checkSonew, defaultGamma, type SonewHyper, sonewDefaults } from "./sonew-options.js";
import {
  addDecayedWeights,
  chain,
  type GradientTransformation,
  scaleByLearningRate,
  type TransformState,
  type TreeMask,
  zerosOf,
} from "./transform.js";
import { mapTrees } from "./trees.js";

type Direction = Omit<SonewHyper, "learningRate" | "weightDecay">;

/** Running averages, each in the form of the parameters. */
export interface SonewState {
  readonly [key: string]: TransformState;
  readonly count: number;
  readonly m: TensorTree;
  /** Diagonal of the second moment, in the order of the chains. */
  readonly h0: TensorTree;
  /** Products with the next neighbour; 0 at the end of a chain. */
  readonly h1: TensorTree;
}

/** `s · L D Lᵀ m̂`: gradients preconditioned by tridiagonal SONew, with the length of the graft. */
export function scaleBySonew(options: Partial<Direction> = {}): GradientTransformation<SonewState> {
  const known = Object.keys(sonewDefaults).filter((key) => key !== "weightDecay");
  checkKeys("scaleBySonew", options, known);
  const hyper = withDefaults<Omit<SonewHyper, "learningRate">>(sonewDefaults, options);
  checkSonew("scaleBySonew", hyper);
  const { beta1, beta2, graft } = hyper;
  const rmsprop = graft === "rmspropNorm";
  return {
    init: (params) => ({
      count: 0,
      m: zerosOf(params),
      h0: zerosOf(params),
      h1: zerosOf(params),
      ...(rmsprop ? { rms: zerosOf(params) } : {}),
    }),
    update(grads, state) {
      const count = state.count + 1;
      const rows = (x: Tensor) => toRows(x, hyper);
      const m = mapTrees((g, old) => average(old, g, beta1), grads, state.m);
      // The statistics live in the order of the chains, in the shape of the parameter.
      const inOrder = (x: Tensor, shape: readonly number[]) => x.reshape(shape);
      const h0 = mapTrees((g, old) => average(old, inOrder(square(rows(g)), g.shape), beta2), grads, state.h0);
      const h1 = mapTrees(
        (g, old) => average(old, inOrder(mul(rows(g), next(rows(g), 0)), g.shape), beta2),
        grads,
        state.h1,
      );
      const rms = rmsprop
        ? mapTrees((g, old) => average(old, square(unit(g)), beta2), grads, state.rms as TensorTree)
        : undefined;
      const corrections = hyper.biasCorrection ? [1 - beta1 ** count, 1 - beta2 ** count] : [1, 1];
      const updates = mapTrees(
        (g, first, diagonal, edges, scale) => direction(g, first, diagonal, edges, scale, corrections, hyper),
        grads,
        m,
        h0,
        h1,
        rms ?? h0,
      );
      return { updates, state: rms ? { count, m, h0, h1, rms } : { count, m, h0, h1 } };
    },
  };
}

/** The update of one tensor from its new statistics. */
function direction(
  g: Tensor,
  m: Tensor,
  h0: Tensor,
  h1: Tensor,
  rms: Tensor,
  [correction1, correction2]: readonly number[],
  hyper: Direction,
): Tensor {
  const shape = toRows(g, hyper).shape;
  const rows = (x: Tensor) => x.reshape(shape);
  const mean = div(toRows(m, hyper), correction1!);
  const diagonal = div(rows(h0), correction2!);
  const adam = () => div(mean, add(sqrt(diagonal), hyper.graftEps));
  if (hyper.vectors === "adam" && g.rank < 2) return fromRows(adam(), g.shape, hyper);

  const u = precondition(mean, diagonal, div(rows(h1), correction2!), hyper);
  const reference = {
    none: () => undefined,
    adam,
    adamRaw: () => div(mean, add(sqrt(rows(h0)), hyper.graftEps)),
    sgd: () => g,
    momentum: () => mean,
    rmspropNorm: () => div(unit(g), add(sqrt(rms), hyper.graftEps)),
  }[hyper.graft]();
  if (!reference) return fromRows(u, g.shape, hyper);
  const length = norm(u);
  const zero = zerosLike(length);
  const factor = where(lessEqual(length, 0), zero, div(norm(reference), length));
  return fromRows(mul(u, factor), g.shape, hyper);
}

/** `L D Lᵀ m` for every row, given the rows' bias-corrected statistics. */
function precondition(m: Tensor, h0: Tensor, h1: Tensor, hyper: Direction): Tensor {
  const gamma = hyper.gamma ?? defaultGamma(m.dtype);
  const delta =
    hyper.epsMode === "absolute"
      ? hyper.eps
      : maximum(mul(max(add(h0, add(abs(h1), previous(abs(h1)))), { axis: 1, keepDims: true }), hyper.eps), 1e-24);
  const a = add(h0, delta);
  const ratio = div(h1, next(a, 1));
  // In float64: where neighbours are correlated nearly all of the difference cancels.
  const wide = (x: Tensor) => astype(x, "float64");
  const schur = astype(sub(wide(a), mul(wide(ratio), wide(h1))), m.dtype);
  const dropped = lessEqual(schur, hyper.gammaMode === "relative" ? mul(a, gamma) : gamma);
  const psi = where(dropped, zerosLike(ratio), ratio);
  const z = div(sub(m, mul(psi, next(m, 0))), where(dropped, a, schur));
  return sub(z, previous(mul(psi, z)));
}

/** Chains as rows `[chains, length]`, in the order that the options ask for. */
function toRows(x: Tensor, hyper: Pick<Direction, "order" | "chain">): Tensor {
  const length = chainLength(x.shape, hyper) || x.size;
  return (hyper.order === "col" && x.rank >= 2 ? reverseAxes(x) : x).reshape([x.size / length, length]);
}

/** Undoes `toRows`. */
function fromRows(x: Tensor, shape: readonly number[], hyper: Pick<Direction, "order">): Tensor {
  if (hyper.order === "row" || shape.length < 2) return x.reshape(shape);
  return reverseAxes(x.reshape([...shape].reverse()));
}

function reverseAxes(x: Tensor): Tensor {
  return permute(
    x,
    x.shape.map((_, axis) => x.rank - 1 - axis),
  );
}

/** `x[:, 1:]`, then `end`. */
function next(x: Tensor, end: number): Tensor {
  const [rows, length] = x.shape as [number, number];
  const last = expand(full([1, 1], end, { dtype: x.dtype, device: x.device }), [rows, 1]);
  return length === 1 ? last : concat([slice(x, 1, 1, length), last], 1);
}

/** 0, then `x[:, :−1]`. */
function previous(x: Tensor): Tensor {
  const [rows, length] = x.shape as [number, number];
  const first = expand(full([1, 1], 0, { dtype: x.dtype, device: x.device }), [rows, 1]);
  return length === 1 ? first : concat([first, slice(x, 1, 0, length - 1)], 1);
}

function norm(x: Tensor): Tensor {
  return sqrt(sum(square(x)));
}

/** A gradient of length 1, as in the authors' rmsprop_norm graft. */
function unit(g: Tensor): Tensor {
  return div(g, add(norm(g), 1e-16));
}

/** Options of `sonew`. */
export interface SonewTransformOptions extends Partial<Omit<SonewHyper, "learningRate">> {
  /** Chooses the parameters that decay, by path and tensor; default all. */
  mask?: TreeMask;
}

/**
 * Tridiagonal SONew (arXiv:2311.10085) as a chain of transforms: `u = −lr · (s · L D Lᵀ m̂ + weightDecay · p)`.
 *
 * @example
 * const transform = chain(clipByGlobalNorm(1), sonew(cosine(2e-3, 1000), { eps: 1e-6 }));
 */
export function sonew(
  learningRate: ScalarOrSchedule,
  options: SonewTransformOptions = {},
): GradientTransformation<readonly TransformState[]> {
  const { mask, weightDecay = 0, ...direction } = options;
  return chain(
    scaleBySonew(direction),
    addDecayedWeights(weightDecay, mask),
    scaleByLearningRate(asSchedule(learningRate)),
  );
}
