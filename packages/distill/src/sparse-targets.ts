/** A few of a teacher's tokens for each row: its likeliest or drawn ones, found in blocks of rows, so that no more of its scores exist than those of a block. */
import {
  clip,
  concat,
  cumsum,
  exp,
  greater,
  logSumExp,
  mul,
  OptionError,
  type RandomKey,
  randomUniform,
  scope,
  slice,
  sum,
  type Tensor,
  topK,
} from "@llmeff/tensor";
import { outsideOf, type SparseTarget } from "./sparse.js";
import { evaluationBlockElements, rowCountOf, rowsOf, type TeacherScores, vocabOf } from "./targets.js";

export interface SparseTargetOptions {
  /** Tokens of each row; above the vocabulary's size all, unless they are drawn. */
  k: number;
  /** Key of the draws; by default the likeliest tokens are taken. */
  draws?: RandomKey;
  /** The mass outside the k tokens too; default true. Drawn tokens have none. */
  tail?: boolean;
  /** Most logits of a block; default 2²⁴. The result doesn't depend on it. */
  blockElements?: number;
}

/**
 * The tokens that a sparse mode of `distillationLoss` learns from, at temperature 1; of several teachers those of their averaged probabilities.
 *
 * @param scores - `[…, C]` and `[V, C]`, or logits `[…, V]`; N rows
 * @returns `ids` `[N, k]`, and unless drawn `logProbs` `[N, k]` by descending probability and `tailLogProb` `[N]`
 * @throws {OptionError} if k isn't a positive integer
 *
 * @example
 * const target = sparseTargets({ hidden: teacherHidden, weight: teacherHead }, { k: 32 });
 * const { loss } = linearDistillationParts(hidden, head, target, { mode: "tail" });
 */
export function sparseTargets(
  scores: TeacherScores | readonly TeacherScores[],
  options: SparseTargetOptions,
): SparseTarget {
  const { draws, tail = true, blockElements = evaluationBlockElements } = options;
  const teachers = [scores].flat();
  if (!Number.isSafeInteger(options.k) || options.k < 1) {
    throw new OptionError(`[sparseTargets] k must be a positive integer; received ${options.k}.`);
  }
  const rows = teachers[0] ? rowCountOf(teachers[0]) : 0;
  if (rows === 0) throw new OptionError("[sparseTargets] expected the scores of at least one row; received none.");
  const vocabSize = Math.max(...teachers.map(vocabOf));
  const k = draws === undefined ? Math.min(options.k, vocabSize) : options.k;
  return scope(() => {
    const uniform = draws && uniformOf(draws, [rows, k], teachers[0]!);
    const rowsAtOnce = Math.max(1, Math.floor(blockElements / vocabSize));
    const blocks: SparseTarget[] = [];
    for (let start = 0; start < rows; start += rowsAtOnce) {
      const end = Math.min(start + rowsAtOnce, rows);
      blocks.push(
        scope(() => {
          const logP = rowsOf(teachers, { start, end }, { tauTeacher: 1, vocabSize });
          return uniform === undefined ? likeliest(logP, k, tail) : { ids: drawn(logP, slice(uniform, 0, start, end)) };
        }),
      );
    }
    return joined(blocks);
  });
}

function joined(blocks: readonly SparseTarget[]): SparseTarget {
  const names = Object.keys(blocks[0]!) as (keyof SparseTarget)[];
  const whole = names.map((name) => {
    const parts = blocks.map((block) => block[name]!);
    return [name, concat(parts, 0)] as const;
  });
  return Object.fromEntries(whole) as unknown as SparseTarget;
}

function likeliest(logP: Tensor, k: number, tail: boolean): SparseTarget {
  const { values, indices } = topK(logP, k);
  const outside = tail && { tailLogProb: logSumExp(outsideOf(logP, indices), { axis: -1 }) };
  return { ids: indices, logProbs: values, ...outside };
}

function uniformOf(key: RandomKey, shape: [number, number], scores: TeacherScores): Tensor {
  const { device } = "logits" in scores ? scores.logits : scores.hidden;
  return randomUniform(key, shape, { dtype: "float64", device });
}

/** Tokens by inversion of the distribution function. */
function drawn(logP: Tensor, uniform: Tensor): Tensor {
  const [, V] = logP.shape as [number, number];
  const cumulative = cumsum(exp(logP), 1);
  // Below the sum as it was rounded, so that a token is drawn that has a probability. Of NaN nothing is above: the id is V, which nobody takes.
  const bound = mul(clip(uniform.astype(logP.dtype), 0, 1 - 2 ** -23), slice(cumulative, 1, V - 1, V));
  const columns = Array.from({ length: uniform.shape[1]! }, (_, j) => {
    const above = greater(cumulative, slice(bound, 1, j, j + 1)).astype("float32");
    return sum(above, { axis: 1, keepDims: true });
  });
  return concat(columns, 1).neg().add(V).astype("int32");
}
