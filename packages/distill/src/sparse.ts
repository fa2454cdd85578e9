/**
 * Losses from a few of the teacher's probabilities: its k likeliest tokens, or tokens drawn from it (distillation.md §4).
 */
import {
  clip,
  type DType,
  equal,
  exp,
  full,
  gather,
  logSoftmax,
  logSumExp,
  mul,
  OptionError,
  scatterAdd,
  softmax,
  sub,
  sum,
  type Tensor,
  where,
  zerosLike,
} from "@llmeff/tensor";
import { type Distribution, type RowLoss, weighted } from "./divergences.js";

export const sparseModes = ["renorm", "naive", "tail", "restrict", "sampled"] as const;

/**
 * `renorm` (default): the k probabilities at the teacher's temperature, made to sum to 1; too sharp on the head. `naive`: as they are, which sum to less.
 * `tail`: and one bucket for all other tokens, a proper score of the head's mass. `restrict`: both sides renormalised inside the k tokens, without gradient
 * outside. `sampled`: drawn tokens, unbiased for the dense soft cross-entropy.
 */
export type SparseMode = (typeof sparseModes)[number];

/** The teacher's side. */
export interface SparseTarget {
  /** int32 `[N, k]`; by descending probability unless drawn. */
  ids: Tensor;
  /** `[N, k]`, of the whole vocabulary at temperature 1; not for drawn tokens. */
  logProbs?: Tensor;
  /** `[N]`: log of the mass outside the k tokens; default what the k leave. */
  tailLogProb?: Tensor;
  /** `[N, k]`, for drawn tokens: summing to 1; default `1/k` each. */
  weights?: Tensor;
}

/** What the k tokens weigh, `[n, k]`, and all others, `[n, 1]`. */
export interface SparseWeights {
  ids: Tensor;
  weights: Tensor;
  tail: Tensor | undefined;
}

const last = { axis: -1, keepDims: true } as const;

/** @throws {OptionError} for an unknown mode, a temperature that it doesn't have, or a target without what it needs */
export function checkSparse(where: string, mode: SparseMode, target: SparseTarget, tauTeacher: number): void {
  checkSparseMode(where, mode, tauTeacher);
  if (mode !== "sampled" && target.logProbs === undefined) {
    throw new OptionError(`[${where}] mode "${mode}" needs the teacher's logProbs; the target has none.`);
  }
}

/** @throws {OptionError} for an unknown mode, or a temperature that it doesn't have */
export function checkSparseMode(where: string, mode: SparseMode, tauTeacher: number): void {
  if (!sparseModes.includes(mode)) {
    throw new OptionError(
      `[${where}] mode must be one of ${sparseModes.join(", ")}; received ${JSON.stringify(mode)}.`,
    );
  }
  if ((mode === "naive" || mode === "tail" || mode === "sampled") && tauTeacher !== 1) {
    throw new OptionError(
      `[${where}] mode "${mode}" has no teacher temperature but 1, since a truncated tail can't be re-tempered; received tauTeacher ${tauTeacher}. Use renorm, or tauTeacher: 1.`,
    );
  }
}

/**
 * The weights of a mode, from rows of the target.
 *
 * @param like - the student's rows, `[n, V]`
 */
export function sparseWeights(mode: SparseMode, rows: SparseTarget, tauTeacher: number, like: Tensor): SparseWeights {
  const { ids, logProbs, tailLogProb } = rows;
  if (mode === "sampled") return { ids, weights: rows.weights ?? uniform(ids, like.dtype), tail: undefined };
  if (mode === "renorm" || mode === "restrict") {
    return { ids, weights: softmax(logProbs!.mul(1 / tauTeacher)), tail: undefined };
  }
  const weights = exp(logProbs!);
  // With all tokens in the set nothing is left, and what rounding leaves must not meet a tail of log 0.
  if (mode === "naive" || ids.shape[1] === like.shape[1]) return { ids, weights, tail: undefined };
  const given = tailLogProb && exp(tailLogProb).unsqueeze(-1);
  return { ids, weights, tail: given ?? clip(sum(weights, last).neg().add(1), 0, 1) };
}

function uniform({ shape, device }: Tensor, dtype: DType): Tensor {
  return full(shape, 1 / shape.at(-1)!, { dtype, device });
}

/** Value and slope of each row. */
export function sparseLoss(mode: SparseMode, { ids, weights, tail }: SparseWeights, student: Distribution): RowLoss {
  const { p: q, log: logQ } = student;
  const head = gather(logQ, -1, ids);
  if (mode === "restrict") return restrictedLoss(ids, weights, head, logQ);
  const mass = sum(weights, last);
  const value = sum(weighted(weights, head), last).neg();
  const slope = scatterAdd(mul(q, tail ? mass.add(tail) : mass), -1, ids, weights.neg());
  return tail ? withTail({ value, slope }, ids, tail, logQ) : { value, slope };
}

/** `−Σ w log softmax_k(logits)`, which has no gradient outside the k tokens. */
function restrictedLoss(ids: Tensor, weights: Tensor, head: Tensor, logQ: Tensor): RowLoss {
  const logInside = logSoftmax(head);
  const slope = scatterAdd(zerosLike(logQ), -1, ids, sub(mul(exp(logInside), sum(weights, last)), weights));
  return { value: sum(weighted(weights, logInside), last).neg(), slope };
}

/**
 * Adds `−r log(1 − Σ_k q)`. The student's tail is the log-sum-exp of what is outside: one minus a sum in float32 would lose it where the head has
 * nearly all. Where the teacher leaves nothing (r = 0) the term is dropped.
 */
function withTail({ value, slope }: RowLoss, ids: Tensor, tail: Tensor, logQ: Tensor): RowLoss {
  const outside = outsideOf(logQ, ids);
  const logTail = logSumExp(outside, last);
  const absent = equal(tail, 0);
  const share = where(absent, 0, exp(sub(outside, logTail)));
  return { value: sub(value, where(absent, 0, mul(tail, logTail))), slope: sub(slope, mul(tail, share)) };
}

/** Log-probabilities `[n, V]` with −∞ for some tokens. One minus a sum would lose the mass of what is left. */
export function outsideOf(logP: Tensor, ids: Tensor): Tensor {
  const hidden = full([], Number.NEGATIVE_INFINITY, { dtype: logP.dtype, device: logP.device });
  return scatterAdd(logP, -1, ids, hidden.expand(ids.shape));
}

/** `−Σ w log w − r log r` of each row, `[n, 1]`. */
export function sparseEntropy({ weights, tail }: SparseWeights): Tensor {
  const entropy = sum(weighted(weights, weights.log()), last).neg();
  return tail ? sub(entropy, weighted(tail, tail.log())) : entropy;
}
