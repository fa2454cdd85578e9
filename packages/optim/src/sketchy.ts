/**
 * Sketchy (S-Shampoo): Shampoo whose second moments are low-rank sketches.
 */
import { scope, type Tensor, zeros } from "@llmeff/tensor";
import { assemble, blockBatches, distribute, PieceMap } from "./blocks.js";
import { checkKeys, requireOptions, withDefaults } from "./check.js";
import { type DecayMask, withDecay } from "./decay.js";
import { applySketch, type Sketch, updateSketch } from "./frequent-directions.js";
import { fold, unfold } from "./kronecker.js";
import { batchOf, itemOf, stateOf } from "./leaves.js";
import type { ScalarOrSchedule } from "./schedules.js";
import {
  checkSketchy,
  type SketchyDirectionHyper,
  type SketchyHyper,
  sketchyDirectionDefaults,
} from "./sketchy-options.js";
import type { Parameter } from "./storage.js";
import { type Preconditioner, tearfree } from "./tearfree.js";
import type { GradientTransformation, TransformState } from "./transform.js";
import { TransformOptimizer, type TransformOptions, type TransformRule } from "./transform-optimizer.js";

/** Of one axis of one block: `u` `[d, k]`, `s` `[k]`, `tail` `[]`. */
type AxisSketch = { readonly u: Tensor; readonly s: Tensor; readonly tail: Tensor };
/** Of one tensor, by block and then axis. */
type SketchyFactors = readonly (readonly AxisSketch[])[];

function sketchyPreconditioner(hyper: SketchyDirectionHyper): Preconditioner<SketchyFactors> {
  return {
    init(tensors) {
      const sketches = new PieceMap<AxisSketch[]>();
      for (const { pieces } of blockBatches(tensors, hyper.blockSize)) {
        for (const piece of pieces) sketches.set(piece, emptySketches(piece.tensor, hyper.rank));
      }
      return factorsOf(sketches);
    },
    update(grads, state, step) {
      const sketches = new PieceMap<readonly AxisSketch[]>();
      const directions = new PieceMap<Tensor>();
      const due = (step - 1) % hyper.updateEvery === 0;
      for (const batch of blockBatches(grads, hyper.blockSize)) {
        const { pieces, shape } = batch;
        const old = pieces.map(({ path, index }) => stateOf("scaleBySketchy", state, path)[index]!);
        const { direction, next } = scope(() => {
          const g = batch.stacked();
          const stacked = shape.map((_, axis) => batchOfSketches(old.map((axes) => axes[axis]!)));
          const next = due ? stacked.map((sketch, axis) => updateSketch(sketch, unfold(g, axis), hyper)) : stacked;
          const options = { exponent: -1 / (2 * shape.length), eps: hyper.eps, relativeEps: hyper.relativeEps };
          const direction = next.reduce(
            (x, sketch, axis) => fold(applySketch(sketch, unfold(x, axis), options), x.shape, axis),
            g,
          );
          return { direction, next };
        });
        distribute(batch, direction, directions);
        for (const [i, piece] of pieces.entries()) {
          sketches.set(piece, due ? next.map((sketch) => itemOfSketches(sketch, i)) : old[i]!);
        }
      }
      return { directions: assemble(grads, directions, hyper.blockSize), state: factorsOf(sketches) };
    },
  };
}

function emptySketches({ shape, dtype, device }: Tensor, rank: number): AxisSketch[] {
  return shape.map((d) => {
    const k = Math.min(rank, d);
    const make = (size: readonly number[]) => zeros(size, { dtype, device });
    return { u: make([d, k]), s: make([k]), tail: make([]) };
  });
}

function batchOfSketches(sketches: readonly AxisSketch[]): Sketch {
  const batch = (key: keyof AxisSketch) => batchOf(sketches.map((sketch) => sketch[key]));
  return { u: batch("u"), s: batch("s"), tail: batch("tail") };
}

function itemOfSketches({ u, s, tail }: Sketch, i: number): AxisSketch {
  return { u: itemOf(u, i), s: itemOf(s, i), tail: itemOf(tail, i) };
}

function factorsOf(sketches: PieceMap<readonly AxisSketch[]>): Record<string, SketchyFactors> {
  return Object.fromEntries([...sketches.paths()].map((path) => [path, sketches.of(path)]));
}

/**
 * Sketchy, or S-Shampoo: as Shampoo, with the second moment of each axis replaced by a Frequent Directions sketch of `rank` eigenvectors and the
 * mass that escaped them: `P_i = (U diag(s²) Uᵀ + τI + εI)^(−1/(2K))`. New gradients have weight 1, not `1 − beta2`: with a graft that changes nothing.
 *
 * For matrices whose Shampoo statistics would not fit: the gradients of networks lie mostly in few directions. State of an m × n matrix at
 * rank k: exactly `(m + n + 2) k + 2 + 2mn` numbers, against `2(m² + n²) + 2mn`. With a rank of at least every axis it keeps the statistics of Shampoo.
 *
 * @see Feinberg et al., _Sketchy: Memory-efficient Adaptive Regularization with Frequent Directions_, arXiv:2302.03764
 */
export function scaleBySketchy(options: Partial<SketchyDirectionHyper> = {}): GradientTransformation {
  checkKeys("scaleBySketchy", options, Object.keys(sketchyDirectionDefaults));
  const hyper = withDefaults<SketchyDirectionHyper>(sketchyDirectionDefaults, options);
  checkSketchy("scaleBySketchy", hyper);
  return tearfree(sketchyPreconditioner(hyper), hyper);
}

/** Options of `sketchy`. */
export interface SketchyTransformOptions extends Partial<Omit<SketchyHyper, "learningRate">>, DecayMask {}

/**
 * Sketchy as a chain of transforms: `u = −lr · (scaleBySketchy(g) + weightDecay · p)`.
 *
 * @example
 * const transform = sketchy(cosine(1e-3, 1000), { rank: 64, updateEvery: 10 });
 */
export function sketchy(
  learningRate: ScalarOrSchedule,
  options: SketchyTransformOptions = {},
): GradientTransformation<readonly TransformState[]> {
  requireOptions("sketchy", options);
  const { mask, weightDecay = 0, ...direction } = options;
  return withDecay(scaleBySketchy(direction), { weightDecay, decoupled: true, mask }, learningRate);
}

const sketchyRule: TransformRule<SketchyHyper> = {
  kind: "sketchy",
  name: "Sketchy",
  defaults: { learningRate: 1e-3, weightDecay: 0, ...sketchyDirectionDefaults },
  check: checkSketchy,
  batched: true,
  transform: ({ learningRate, ...hyper }) => sketchy(learningRate, hyper),
};

export type SketchyOptions = TransformOptions<SketchyHyper>;

/**
 * Sketchy (see `scaleBySketchy`) as an optimizer; `stateBytes()` is that of the formula there.
 *
 * @example
 * const optimizer = new Sketchy(params, { learningRate: cosine(1e-3, 1000), rank: 64, updateEvery: 10 });
 */
export class Sketchy<P extends Parameter> extends TransformOptimizer<P, SketchyHyper> {
  constructor(params: Readonly<Record<string, P>>, options: SketchyOptions = {}) {
    super(sketchyRule, params, options);
  }
}
