/**
 * The pipeline that Shampoo and Sketchy share, after google-research/precondition's "tearfree": `momentum(graft(precondition(g)))`. What
 * preconditions is given; it sees the tensors that aren't skipped, axes merged.
 */
import { add, div, mul, sqrt, square, type Tensor, type TensorTree } from "@llmeff/tensor";
import { norm, withLengthOf } from "./graft.js";
import { type ByPath, type Leaves, leavesOf } from "./leaves.js";
import { mergeSmallDims } from "./merge-dims.js";
import type { TearfreeHyper } from "./tearfree-options.js";
import type { GradientTransformation, TransformState } from "./transform.js";
import { zerosOf } from "./transform.js";
import { mapTrees } from "./trees.js";

/** Preconditions tensors of one axis or more; its state is kept by path. */
export interface Preconditioner<S extends TransformState> {
  init(tensors: Leaves): ByPath<S>;
  /** `step` is 1 at the first. Returns the preconditioned gradients, of the same shapes. */
  update(grads: Leaves, state: ByPath<S>, step: number): { directions: Leaves; state: ByPath<S> };
}

export interface TearfreeState<S extends TransformState> {
  readonly [key: string]: TransformState;
  readonly count: number;
  readonly factors: ByPath<S>;
  /** Absent without momentum. */
  readonly momentum: TensorTree;
  /** Second moment of the graft; absent for grafts without. */
  readonly graft: TensorTree;
}

/** Gradients through a preconditioner, a graft and momentum. */
export function tearfree<S extends TransformState>(
  preconditioner: Preconditioner<S>,
  hyper: TearfreeHyper,
): GradientTransformation {
  const hasSecondMoment = hyper.graft === "rmsprop" || hyper.graft === "rmspropNorm";
  const chosen = (tree: TensorTree): Leaves =>
    new Map(
      [...leavesOf(tree)].flatMap(([path, x]) => {
        const merged = mergeSmallDims(x.shape, hyper.mergeDims);
        return merged.length === 0 || isSkipped(x, hyper) ? [] : [[path, x.reshape(merged)] as const];
      }),
    );
  return {
    init: (params) => ({
      count: 0,
      factors: preconditioner.init(chosen(params)),
      ...(hyper.momentum > 0 ? { momentum: zerosOf(params) } : {}),
      ...(hasSecondMoment ? { graft: zerosOf(params) } : {}),
    }),
    update(grads, state) {
      const old = state as unknown as TearfreeState<S>;
      const count = old.count + 1;
      const { directions, state: factors } = preconditioner.update(chosen(grads), old.factors, count);
      const secondMoment = hasSecondMoment
        ? mapTrees((g, v) => accumulate(v, square(graftInput(g, hyper)), hyper.graftBeta2), grads, old.graft)
        : undefined;
      const grafted = mapTrees(
        (g, v, path) => {
          const direction = directions.get(path)?.reshape(g.shape);
          if (hyper.graft === "none") return direction ?? g;
          const reference = graftReference(g, v, hyper);
          return direction === undefined || count <= hyper.startStep ? reference : withLengthOf(reference, direction);
        },
        grads,
        secondMoment ?? grads,
      );
      const next = (momentum?: TensorTree) =>
        ({
          count,
          factors,
          ...(momentum ? { momentum } : {}),
          ...(secondMoment ? { graft: secondMoment } : {}),
        }) as TransformState;
      if (hyper.momentum === 0) return { updates: grafted, state: next() };
      const fresh = hyper.ema ? mapTrees((u) => mul(u, 1 - hyper.momentum), grafted) : grafted;
      const advance = (u: Tensor, b: Tensor) => add(mul(b, hyper.momentum), u);
      const momentum = mapTrees(advance, fresh, old.momentum);
      const updates = hyper.nesterov ? mapTrees(advance, fresh, momentum) : momentum;
      return { updates, state: next(momentum) };
    },
  };
}

/** Judged by the shape before merging. Without a graft there is nothing else to follow. */
function isSkipped(x: Tensor, { graft, skipRank1, skipDimGt }: TearfreeHyper): boolean {
  return graft !== "none" && ((skipRank1 && x.rank <= 1) || x.shape.some((size) => size > skipDimGt));
}

/** `decay · old + (1 − decay) · sample`, or the sum where decay is 1. */
export function accumulate(old: Tensor, sample: Tensor, decay: number): Tensor {
  return decay === 1 ? add(old, sample) : add(mul(old, decay), mul(sample, 1 - decay));
}

function graftInput(g: Tensor, { graft }: TearfreeHyper): Tensor {
  return graft === "rmspropNorm" ? div(g, add(norm(g), 1e-16)) : g;
}

function graftReference(g: Tensor, secondMoment: Tensor, hyper: TearfreeHyper): Tensor {
  if (hyper.graft === "sgd") return g;
  return div(graftInput(g, hyper), sqrt(add(secondMoment, hyper.graftEps)));
}
