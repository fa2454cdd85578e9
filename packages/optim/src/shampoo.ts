/**
 * Shampoo: gradients multiplied on every axis with an inverse root of that axis's second moment.
 */
import { concat, eye, lessEqual, scope, type Tensor, where } from "@llmeff/tensor";
import { assemble, blockBatches, distribute, PieceMap } from "./blocks.js";
import { checkKeys, requireOptions, withDefaults } from "./check.js";
import { type DecayMask, withDecay } from "./decay.js";
import { coupledNewton, inverseRoot } from "./inverse-root.js";
import { gramOf, modeProducts } from "./kronecker.js";
import { batchOf, itemOf, stateOf } from "./leaves.js";
import type { ScalarOrSchedule } from "./schedules.js";
import {
  checkShampoo,
  type ShampooDirectionHyper,
  type ShampooHyper,
  shampooDirectionDefaults,
} from "./shampoo-options.js";
import type { Parameter } from "./storage.js";
import { accumulate, type Preconditioner, tearfree } from "./tearfree.js";
import type { GradientTransformation, TransformState } from "./transform.js";
import { TransformOptimizer, type TransformOptions, type TransformRule } from "./transform-optimizer.js";

/** Of one tensor, by block and then axis. */
type ShampooFactors = {
  /** Second moments `[d_i, d_i]`. */
  readonly statistics: readonly (readonly Tensor[])[];
  /** Their inverse roots; identities at first. */
  readonly roots: readonly (readonly Tensor[])[];
};

/** A coupled Newton root that ends farther than this from the identity isn't used: the previous one stays. */
const largestRootError = 0.1;

/** The part of Shampoo before graft and momentum. */
function shampooPreconditioner(hyper: ShampooDirectionHyper): Preconditioner<ShampooFactors> {
  return {
    init(tensors) {
      const zeros = new PieceMap<Tensor[]>();
      const identities = new PieceMap<Tensor[]>();
      for (const { pieces } of blockBatches(tensors, hyper.blockSize)) {
        for (const piece of pieces) {
          const { shape, dtype, device } = piece.tensor;
          const units = shape.map((size) => eye(size, undefined, { dtype, device }));
          zeros.set(
            piece,
            units.map((unit) => unit.mul(0)),
          );
          identities.set(piece, units);
        }
      }
      return factorsOf(zeros, identities);
    },
    update(grads, state, step) {
      const statistics = new PieceMap<Tensor[]>();
      const roots = new PieceMap<Tensor[]>();
      const directions = new PieceMap<Tensor>();
      const isDue = (every: number) => (step - 1) % every === 0;
      for (const batch of blockBatches(grads, hyper.blockSize)) {
        const { pieces, shape } = batch;
        const old = pieces.map(({ path, index }) => {
          const factors = stateOf("scaleByShampoo", state, path);
          return { statistics: factors.statistics[index]!, roots: factors.roots[index]! };
        });
        const { direction, nextMoments, nextRoots } = scope(() => {
          const g = batch.stacked();
          const stacked = (key: keyof (typeof old)[number]) =>
            shape.map((_, axis) => batchOf(old.map((piece) => piece[key][axis]!)));
          const moments = isDue(hyper.statEvery) || isDue(hyper.rootEvery) ? stacked("statistics") : [];
          const nextMoments = isDue(hyper.statEvery)
            ? moments.map((moment, axis) => accumulate(moment, gramOf(g, axis), hyper.beta2))
            : undefined;
          const kept = stacked("roots");
          const nextRoots = isDue(hyper.rootEvery)
            ? (nextMoments ?? moments).map((moment, axis) => rootOf(moment, kept[axis]!, 2 * shape.length, hyper))
            : undefined;
          return { direction: modeProducts(g, nextRoots ?? kept), nextMoments, nextRoots };
        });
        distribute(batch, direction, directions);
        for (const [i, piece] of pieces.entries()) {
          statistics.set(piece, nextMoments?.map((moment) => itemOf(moment, i)) ?? [...old[i]!.statistics]);
          roots.set(piece, nextRoots?.map((root) => itemOf(root, i)) ?? [...old[i]!.roots]);
        }
      }
      return { directions: assemble(grads, directions, hyper.blockSize), state: factorsOf(statistics, roots) };
    },
  };
}

function factorsOf(statistics: PieceMap<Tensor[]>, roots: PieceMap<Tensor[]>): Record<string, ShampooFactors> {
  return Object.fromEntries(
    [...statistics.paths()].map((path) => [path, { statistics: statistics.of(path), roots: roots.of(path) }]),
  );
}

/** Numbers in the matrices whose roots are computed together: enough to fill a GPU, few enough for the float64 temporaries. */
const rootBatch = 2 ** 25;

/** `(L + ridge)^(−1/p)` of a batch; matrices whose root fails keep the previous one. */
function rootOf(moment: Tensor, previous: Tensor, p: number, hyper: ShampooDirectionHyper): Tensor {
  const [count, n] = [moment.shape[0]!, moment.shape[1]!];
  const together = Math.max(1, Math.floor(rootBatch / n ** 2));
  if (count <= together) return rootsOf(moment, previous, p, hyper);
  const starts = Array.from({ length: Math.ceil(count / together) }, (_, i) => i * together);
  return scope(() => {
    const part = (x: Tensor, start: number) => x.slice(0, start, Math.min(count, start + together));
    return concat(starts.map((start) => rootsOf(part(moment, start), part(previous, start), p, hyper)));
  });
}

function rootsOf(moment: Tensor, previous: Tensor, p: number, hyper: ShampooDirectionHyper): Tensor {
  const { eps, ridge, root } = hyper;
  if (root === "eigh") return inverseRoot(moment, { p, eps, ridge });
  return scope(() => {
    const { root: next, error } = coupledNewton(moment, { p, eps, ridge });
    return where(lessEqual(error, largestRootError), next, previous);
  });
}

/**
 * Shampoo with grafting and momentum. Per block of a tensor with axes `1…K` (small axes merged, long ones cut): `L_i ← beta2 L_i + (1 − beta2)
 * mat_i(G) mat_i(G)ᵀ`, `P_i = (L_i + eps λmax I)^(−1/(2K))`, `u = G ×_1 P_1 … ×_K P_K`, statistics and roots before the gradient is preconditioned.
 * Then `u ← u · ‖a‖/‖u‖` with the graft's update `a`, and momentum.
 *
 * For weight matrices when steps are dear: it takes the fewest of the methods here, each costing `4mn(m + n)` FLOPs and
 * the roots. State of an m × n matrix: `2(m² + n²) + 2mn` numbers; Sketchy needs a fraction of that.
 *
 * @see Gupta, Koren & Singer, arXiv:1802.09568; Anil et al., arXiv:2002.09018
 */
export function scaleByShampoo(options: Partial<ShampooDirectionHyper> = {}): GradientTransformation {
  checkKeys("scaleByShampoo", options, Object.keys(shampooDirectionDefaults));
  const hyper = withDefaults<ShampooDirectionHyper>(shampooDirectionDefaults, options);
  checkShampoo("scaleByShampoo", hyper);
  return tearfree(shampooPreconditioner(hyper), hyper);
}

/** Options of `shampoo`. */
export interface ShampooTransformOptions extends Partial<Omit<ShampooHyper, "learningRate">>, DecayMask {}

/**
 * Shampoo as a chain of transforms: `u = −lr · (scaleByShampoo(g) + weightDecay · p)`.
 *
 * @example
 * const transform = shampoo(cosine(1e-3, 1000), { rootEvery: 20, beta2: 0.95 });
 */
export function shampoo(
  learningRate: ScalarOrSchedule,
  options: ShampooTransformOptions = {},
): GradientTransformation<readonly TransformState[]> {
  requireOptions("shampoo", options);
  const { mask, weightDecay = 0, ...direction } = options;
  return withDecay(scaleByShampoo(direction), { weightDecay, decoupled: true, mask }, learningRate);
}

const shampooRule: TransformRule<ShampooHyper> = {
  kind: "shampoo",
  name: "Shampoo",
  defaults: { learningRate: 1e-3, weightDecay: 0, ...shampooDirectionDefaults },
  check: checkShampoo,
  batched: true,
  transform: ({ learningRate, ...hyper }) => shampoo(learningRate, hyper),
};

export type ShampooOptions = TransformOptions<ShampooHyper>;

/**
 * Shampoo (see `scaleByShampoo`) as an optimizer. Roots are computed only when due, and blocks of one shape together.
 *
 * @example
 * const optimizer = new Shampoo(params, { learningRate: cosine(1e-3, 1000), rootEvery: 20, groups: [{ params: vectors, weightDecay: 0 }] });
 */
export class Shampoo<P extends Parameter> extends TransformOptimizer<P, ShampooHyper> {
  constructor(params: Readonly<Record<string, P>>, options: ShampooOptions = {}) {
    super(shampooRule, params, options);
  }
}
