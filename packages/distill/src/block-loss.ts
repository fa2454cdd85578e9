/** The loss of a block of rows, `Σ (c · CE + k · KD)`, with its gradient and what is told of it. */
import {
  argMax,
  concat,
  equal,
  gather,
  logSoftmax,
  maximum,
  mul,
  scatterAdd,
  slice,
  sub,
  sum,
  type Tensor,
  where,
  zerosLike,
} from "@llmeff/tensor";
import {
  type Distribution,
  type Divergence,
  distributionOf,
  divergenceOf,
  entropyOf,
  excludedTokens,
  needsFullSupport,
  type RowLoss,
  weighted,
} from "./divergences.js";
import { type SparseMode, type SparseTarget, sparseEntropy, sparseLoss, sparseWeights } from "./sparse.js";
import { type DistillTarget, isSparse, teacherRows, teachersOf } from "./targets.js";

export interface BlockSettings {
  target: DistillTarget;
  divergence: Divergence;
  mode: SparseMode;
  tauStudent: number;
  tauTeacher: number;
  /** Multiplies value and gradient of KD: τ² or 1. */
  scale: number;
  /** int32 `[N]`, −100 without a label; undefined if there are none at all. */
  labels: Tensor | undefined;
  /** bool `[N]` */
  valid: Tensor;
  /** `[]` each. */
  ceWeight: Tensor;
  kdWeight: Tensor;
  /** Runs what computes the teacher's scores of a block; measures it, where somebody asks. */
  asTeacher: <R>(fn: () => R) => R;
}

/** Sums over the valid rows of ce, kd, kl, teacher entropy and top-1 agreement, in this order, then of tokens that make the divergence infinite. */
export const statCount = 6;

export interface BlockLoss {
  /** `[6]` */
  stats: Tensor;
  /** `[n, V]`: of the sum over the rows. */
  dlogits: Tensor | undefined;
}

const last = { axis: -1, keepDims: true } as const;

interface Kd extends RowLoss {
  kl: Tensor;
  entropy: Tensor;
  agreement: Tensor;
  /** Tokens that make it infinite; undefined where none can. */
  excluded?: Tensor;
}

/** @param logits - student, `[n, V]`, rows `start .. start + n − 1` of all */
export function blockLoss(logits: Tensor, start: number, settings: BlockSettings, needsGradient: boolean): BlockLoss {
  const { tauStudent, labels, scale, ceWeight, kdWeight } = settings;
  const end = start + logits.shape[0]!;
  const valid = slice(settings.valid, 0, start, end).unsqueeze(-1);
  const own = distributionOf(logSoftmax(logits));
  const tempered = tauStudent === 1 ? own : distributionOf(logSoftmax(mul(logits, 1 / tauStudent)));
  const kd = knowledgeOf(tempered, start, end, settings);
  // A row without a label reads token 0, and is left out of the sums.
  const ids = labels && maximum(slice(labels, 0, start, end), 0).unsqueeze(-1);
  const none = zerosLike(kd.value);
  const ce = ids ? gather(own.log, -1, ids).neg() : none;
  const rows = concat([ce, mul(kd.value, scale), kd.kl, kd.entropy, kd.agreement, kd.excluded ?? none], 1);
  const stats = sum(where(valid, rows, 0), { axis: 0 });
  if (!needsGradient) return { stats, dlogits: undefined };
  const slope = mul(kd.slope, mul(kdWeight, scale / tauStudent));
  const both = ids ? scatterAdd(slope.add(mul(own.p, ceWeight)), -1, ids, ceWeight.neg().expand(ids.shape)) : slope;
  return { stats, dlogits: where(valid, both, 0) };
}

function knowledgeOf(student: Distribution, start: number, end: number, settings: BlockSettings): Kd {
  const { target } = settings;
  if (isSparse(target)) return sparseKnowledge(student, sliceTarget(target, start, end, student.log), settings);
  const { divergence, tauTeacher, asTeacher } = settings;
  const form = { tauTeacher, vocabSize: student.log.shape[1]!, dtype: student.log.dtype };
  const teacher = asTeacher(() => distributionOf(teacherRows(teachersOf(target), { start, end }, form)));
  const loss = divergenceOf(divergence, teacher, student);
  const entropy = entropyOf(teacher);
  const crossEntropy = () => sum(weighted(teacher.p, student.log), last).neg();
  const kl =
    divergence.kind === "forwardKl"
      ? loss.value
      : sub(divergence.kind === "softCrossEntropy" ? loss.value : crossEntropy(), entropy);
  const named = argMax(teacher.log, { axis: -1 }).unsqueeze(-1);
  return {
    ...{ ...loss, kl, entropy, agreement: sameArgMax(student.log, named) },
    ...(needsFullSupport(divergence) && { excluded: excludedTokens(divergence, teacher, student) }),
  };
}

function sparseKnowledge(student: Distribution, target: SparseTarget, { mode, tauTeacher }: BlockSettings): Kd {
  const weights = sparseWeights(mode, target, tauTeacher, student.log);
  const loss = sparseLoss(mode, weights, student);
  const entropy = sparseEntropy(weights);
  // Of drawn tokens the share that agrees; of the likeliest the first.
  const named = mode === "sampled" ? target.ids : slice(target.ids, 1, 0, 1);
  return { ...loss, kl: sub(loss.value, entropy), entropy, agreement: sameArgMax(student.log, named) };
}

/** Share of `named` that the student's largest logit names, `[n, 1]`. */
function sameArgMax(logQ: Tensor, named: Tensor): Tensor {
  const own = argMax(logQ, { axis: -1 }).unsqueeze(-1);
  return equal(own, named).astype(logQ.dtype).mean(last);
}

function sliceTarget(target: SparseTarget, start: number, end: number, like: Tensor): SparseTarget {
  const { ids, logProbs, tailLogProb, weights } = target;
  const rows = (x: Tensor) => slice(x, 0, start, end).astype(like.dtype);
  return {
    ids: slice(ids, 0, start, end),
    ...(logProbs && { logProbs: rows(logProbs) }),
    ...(tailLogProb && { tailLogProb: rows(tailLogProb) }),
    ...(weights && { weights: rows(weights) }),
  };
}
