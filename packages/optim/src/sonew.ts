/**
 * SONew as a gradient transform, written with tensor operations straight from the formulas: the independent twin of the fused kernel behind
 * `Sonew`.
 */
import {
  abs,
  accumulationDType,
  add,
  astype,
  div,
  lessEqual,
  max,
  maximum,
  mul,
  permute,
  sqrt,
  square,
  sum,
  type Tensor,
  type TensorTree,
  tensorsOf,
  where,
  zeros,
} from "@llmeff/tensor";
import { average } from "./adamw.js";
import { checkKeys, requireOptions, withDefaults } from "./check.js";
import { type DecayMask, withDecay } from "./decay.js";
import { chainLength } from "./fused-sonew.js";
import type { ScalarOrSchedule } from "./schedules.js";
import { earlier, factorise, later, precondition } from "./sonew-factor.js";
import {
  checkSonew,
  checkStateDtype,
  defaultGamma,
  roundingUnit,
  type SonewHyper,
  type StateDtype,
  sonewDefaults,
} from "./sonew-options.js";
import { arrayOfRms, roundStochastically } from "./stochastic-rounding.js";
import type { GradientTransformation, TransformState } from "./transform.js";
import { mapTrees } from "./trees.js";

type Direction = Omit<SonewHyper, "learningRate" | "weightDecay">;

/** Running averages, each in the form of the parameters. */
export interface SonewState {
  readonly [key: string]: TransformState;
  readonly count: number;
  readonly m: TensorTree;
  /** The main diagonal of the second moment and `band` super-diagonals, in the order of the chains; 0 where a chain has ended. */
  readonly diagonals: readonly TensorTree[];
  /** How many elements failed the stability test so far; float64 `[]`. */
  readonly dropped: Tensor;
}

/**
 * `s · L D Lᵀ m̂`: gradients preconditioned by SONew, with the length of the graft.
 *
 * `m̂` and the diagonals `Ĥ_k[j]` are the bias-corrected averages of `g` and of `g_j g_{j+k}`, `k ≤ band`; `L D Lᵀ` is the positive definite matrix
 * nearest in LogDet divergence to the inverse of the matrix with these diagonals (plus δ), among those that have its band.
 *
 * @param options - the hyper-parameters of `Sonew` without learning rate and decay
 * @throws {OptionError} for a hyper-parameter outside its domain or an unknown option
 * @see arXiv:2311.10085
 */
export function scaleBySonew(options: Partial<Direction> = {}): GradientTransformation<SonewState> {
  const known = Object.keys(sonewDefaults).filter((key) => key !== "weightDecay");
  checkKeys("scaleBySonew", options, known);
  const hyper = withDefaults<Omit<SonewHyper, "learningRate">>(sonewDefaults, options);
  checkSonew("scaleBySonew", hyper);
  const rmsprop = hyper.graft === "rmspropNorm";
  return {
    init(params) {
      const empty = () => mapTrees((p) => zeros(p.shape, { dtype: stateDtypeOf(p, hyper), device: p.device }), params);
      return {
        count: 0,
        m: empty(),
        diagonals: Array.from({ length: hyper.band + 1 }, empty),
        dropped: zeros([], { dtype: "float64", device: deviceOfTree(params) }),
        ...(rmsprop ? { rms: empty() } : {}),
      };
    },
    update(grads, state) {
      const step = state.count + 1;
      const averages = newAverages(grads, state, step, hyper);
      let dropped = state.dropped;
      const leaves = [averages.m, ...averages.diagonals, ...(averages.rms ? [averages.rms] : [])];
      const updates = mapTrees(
        (...at) => {
          const [g, ...own] = at.slice(0, -1) as [Tensor, ...Tensor[]];
          const made = direction(g, own, step, hyper);
          if (made.dropped) dropped = add(dropped, made.dropped);
          return made.update;
        },
        grads,
        ...leaves,
      );
      return { updates, state: { count: step, ...averages, dropped } };
    },
  };
}

/** The dtype of a tensor's running averages. */
function stateDtypeOf(p: Tensor, hyper: Direction): StateDtype {
  const wide = accumulationDType(p.dtype);
  if (hyper.stateDtype === undefined || takesAdam(p, hyper)) return wide;
  checkStateDtype("scaleBySonew", hyper.stateDtype, wide);
  return hyper.stateDtype;
}

const takesAdam = (p: Tensor, hyper: Direction) => hyper.vectors === "adam" && p.rank < 2;

function deviceOfTree(params: TensorTree) {
  for (const tensor of tensorsOf(params)) return tensor.device;
  return undefined;
}

/** All running averages after a gradient. */
function newAverages(
  grads: TensorTree,
  state: SonewState,
  step: number,
  hyper: Direction,
): { m: TensorTree; diagonals: TensorTree[]; rms?: TensorTree } {
  const { beta1, beta2, seed } = hyper;
  const wide = (x: Tensor) => astype(x, accumulationDType(x.dtype));
  // sample(g) in the shape of g; `inOrder`: in the order of the chains.
  const advance = (
    old: TensorTree,
    array: number,
    beta: number,
    inOrder: boolean,
    sample: (g: Tensor) => Tensor,
  ): TensorTree => {
    let id = 0;
    return mapTrees(
      (g, before) => {
        const x = average(wide(before), sample(wide(g)), beta);
        const key = { seed, id: id++, array, step };
        if (before.dtype !== "bfloat16") return x;
        const drawn = inOrder ? g.shape : toRows(g, hyper).shape;
        return roundStochastically(x, key, drawn, (random) => (inOrder ? random : fromRows(random, g.shape, hyper)));
      },
      grads,
      old,
    );
  };
  const pairs = (k: number) => (g: Tensor) => {
    const rows = toRows(g, hyper);
    return mul(rows, later(rows, k, 0)).reshape(g.shape);
  };
  return {
    m: advance(state.m, 0, beta1, false, (g) => g),
    diagonals: state.diagonals.map((old, k) => advance(old, 1 + k, beta2, true, pairs(k))),
    ...(state.rms ? { rms: advance(state.rms as TensorTree, arrayOfRms, beta2, false, (g) => square(unit(g))) } : {}),
  };
}

/** The update of one tensor from its new averages (m, the diagonals, rms), and how many elements failed. */
function direction(
  gradient: Tensor,
  averages: readonly Tensor[],
  step: number,
  hyper: Direction,
): { update: Tensor; dropped?: Tensor } {
  const [correction1, correction2] = hyper.biasCorrection ? [1 - hyper.beta1 ** step, 1 - hyper.beta2 ** step] : [1, 1];
  const dtype = accumulationDType(gradient.dtype);
  const g = astype(gradient, dtype);
  const [m, ...others] = averages.map((x) => astype(x, dtype)) as [Tensor, ...Tensor[]];
  const shape = toRows(g, hyper).shape;
  const diagonals = others.slice(0, hyper.band + 1).map((x) => div(x.reshape(shape), correction2));
  const mean = div(toRows(m, hyper), correction1);
  const back = (u: Tensor) => astype(fromRows(u, g.shape, hyper), gradient.dtype);
  const adam = () => div(mean, add(sqrt(diagonals[0]!), hyper.graftEps));
  if (takesAdam(g, hyper)) return { update: back(adam()) };

  const gamma = hyper.gamma ?? defaultGamma(averages[0]!.dtype);
  const pivotFloor = roundingUnit(averages[0]!.dtype);
  const [main, ...edges] = diagonals as [Tensor, ...Tensor[]];
  const factor = factorise([add(main, delta(diagonals, hyper)), ...edges], { ...hyper, gamma, pivotFloor });
  const dropped = sum(astype(factor.failed, "float64"));
  const u = astype(precondition(factor, mean), dtype);
  const reference = {
    none: () => undefined,
    adam,
    adamRaw: () => div(mean, add(sqrt(mul(diagonals[0]!, correction2)), hyper.graftEps)),
    sgd: () => g,
    momentum: () => mean,
    rmspropNorm: () => div(unit(g), add(sqrt(others[hyper.band + 1]!), hyper.graftEps)),
  }[hyper.graft]();
  if (!reference) return { update: back(u), dropped };
  const length = norm(u);
  const scale = where(lessEqual(length, 0), 0, div(norm(reference), length));
  return { update: back(mul(u, scale)), dropped };
}

/** δ, or with relative eps one for each chain `[chains, 1]`: eps times the largest row sum of the statistics. */
function delta(diagonals: readonly Tensor[], hyper: Direction): Tensor | number {
  if (hyper.epsMode === "absolute") return hyper.eps;
  const sums = diagonals
    .map((x, k) => (k === 0 ? x : add(abs(x), earlier(abs(x), k))))
    .reduce((total, x) => add(total, x));
  return maximum(mul(max(sums, { axis: 1, keepDims: true }), hyper.eps), 1e-24);
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

function norm(x: Tensor): Tensor {
  return sqrt(sum(square(x)));
}

/** A gradient of length 1, as in the authors' rmsprop_norm graft. */
function unit(g: Tensor): Tensor {
  return div(g, add(norm(g), 1e-16));
}

/** Options of `sonew`. */
export interface SonewTransformOptions extends Partial<Omit<SonewHyper, "learningRate">>, DecayMask {}

/**
 * SONew (arXiv:2311.10085) as a chain of transforms: `u = −lr · (s · L D Lᵀ m̂ + weightDecay · p)`.
 *
 * @example
 * const transform = chain(clipByGlobalNorm(1), sonew(cosine(2e-3, 1000), { eps: 1e-6 }));
 */
export function sonew(
  learningRate: ScalarOrSchedule,
  options: SonewTransformOptions = {},
): GradientTransformation<readonly TransformState[]> {
  requireOptions("sonew", options);
  const { mask, weightDecay = 0, ...direction } = options;
  return withDecay(scaleBySonew(direction), { weightDecay, decoupled: true, mask }, learningRate);
}
