/**
 * The pipeline that Shampoo and Sketchy share, after google-research/precondition's "tearfree": `momentum(graft(precondition(g)))`. What
 * preconditions is given; it sees the tensors that aren't skipped, axes merged.
 */
import { add, div, mul, scope, sqrt, square, sum, type Tensor, type TensorTree } from "@llmeff/tensor";
import { withLengthOf } from "./graft.js";
import { type ByPath, batchKey, batchOf, groupBy, itemOf, type Leaves, leavesOf, withLeaves } from "./leaves.js";
import { mergeSmallDims } from "./merge-dims.js";
import type { TearfreeHyper } from "./tearfree-options.js";
import type { GradientTransformation, TransformState } from "./transform.js";
import { zerosOf } from "./transform.js";

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
      const [moments, buffers] = [old.graft, old.momentum].map((tree) => (tree ? leavesOf(tree) : undefined));
      const leaves = leavesOf(grads);
      const results = { updates: new Map(), graft: new Map(), momentum: new Map() };
      for (const group of groupBy(leaves, ([, grad]) => batchKey(grad))) {
        const [first, { shape, size }] = group[0]!;
        const next = scope(() => {
          const rowsOf = (from: Leaves) => batchOf(group.map(([path]) => from.get(path)!.reshape([size])));
          const rows = {
            g: rowsOf(leaves),
            // Tensors of one shape all have a direction, or none has.
            direction: directions.has(first) ? rowsOf(directions) : undefined,
            graft: moments && rowsOf(moments),
            momentum: buffers && rowsOf(buffers),
          };
          return afterwards(rows, count, hyper);
        });
        for (const [i, [path]] of group.entries()) {
          for (const key of ["updates", "graft", "momentum"] as const) {
            const batch = next[key];
            if (batch) results[key].set(path, itemOf(batch, i, shape));
          }
        }
      }
      return {
        updates: withLeaves(grads, results.updates),
        state: {
          count,
          factors,
          ...(buffers ? { momentum: withLeaves(old.momentum, results.momentum) } : {}),
          ...(moments ? { graft: withLeaves(old.graft, results.graft) } : {}),
        } as TransformState,
      };
    },
  };
}

/** Tensors of one shape, each as a row. */
interface Rows {
  g: Tensor;
  /** Absent where the graft is followed alone, or nothing is done. */
  direction: Tensor | undefined;
  graft: Tensor | undefined;
  momentum: Tensor | undefined;
}

/** Graft and momentum. */
function afterwards(
  { g, direction, graft, momentum }: Rows,
  count: number,
  hyper: TearfreeHyper,
): { updates: Tensor; graft: Tensor | undefined; momentum: Tensor | undefined } {
  const secondMoment = graft && accumulate(graft, square(graftInput(g, hyper)), hyper.graftBeta2);
  const u = grafted(g, direction, secondMoment, count, hyper);
  if (momentum === undefined) return { updates: u, graft: secondMoment, momentum };
  const fresh = hyper.ema ? mul(u, 1 - hyper.momentum) : u;
  const next = add(mul(momentum, hyper.momentum), fresh);
  const updates = hyper.nesterov ? add(mul(next, hyper.momentum), fresh) : next;
  return { updates, graft: secondMoment, momentum: next };
}

function grafted(
  g: Tensor,
  direction: Tensor | undefined,
  secondMoment: Tensor | undefined,
  count: number,
  hyper: TearfreeHyper,
): Tensor {
  if (hyper.graft === "none") return direction ?? g;
  const reference = secondMoment ? div(graftInput(g, hyper), sqrt(add(secondMoment, hyper.graftEps))) : g;
  return direction === undefined || count <= hyper.startStep
    ? reference
    : withLengthOf(reference, direction, rowLengths);
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
  return graft === "rmspropNorm" ? div(g, add(rowLengths(g), 1e-16)) : g;
}

function rowLengths(x: Tensor): Tensor {
  return sqrt(sum(square(x), { axis: 1, keepDims: true }));
}
