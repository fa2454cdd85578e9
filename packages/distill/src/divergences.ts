/**
 * Divergences between a teacher's distribution p and a student's q over the vocabulary, each with its gradient in closed form (distillation.md §5).
 *
 * All take normalised distributions, from which constants that were added to the logits are gone, and give for each row the value and its slope with respect
 * to the student's logits at its temperature. Where p or q is 0 its term is 0, whatever its logarithm: `0 · log 0 = 0`.
 */
import {
  abs,
  add,
  equal,
  exp,
  greater,
  logAddExp,
  logicalAnd,
  maximum,
  mean,
  mul,
  OptionError,
  sign,
  sub,
  sum,
  type Tensor,
  where,
} from "@llmeff/tensor";

export type Divergence =
  /** `−Σ p log q`: SALT's. The gradient of the forward KL, with the teacher's entropy in its value. */
  | { kind: "softCrossEntropy" }
  /** `Σ p log(p/q)`: covers all of the teacher's modes. */
  | { kind: "forwardKl" }
  /** `Σ q log(q/p)`: seeks one of them; infinite where the teacher excludes a token. */
  | { kind: "reverseKl" }
  /** `β KL(p‖m) + (1−β) KL(q‖m)`, `m = βp + (1−β)q` (GKD, arXiv:2306.13649); β = 0 is the forward and β = 1 the reverse KL. Default 0.5. */
  | { kind: "jsd"; beta?: number }
  /** `KL(p‖αp + (1−α)q)` (DistiLLM, arXiv:2402.03898); default α 0.1. */
  | { kind: "skewedKl"; alpha?: number }
  /** `½ Σ |p − q|` */
  | { kind: "totalVariation" }
  /** Mean squared difference of the logits, each centred on its mean. */
  | { kind: "logitMse" };

/** A value for each row, and its gradient with respect to the student's logits. */
export interface RowLoss {
  /** `[n, 1]` */
  value: Tensor;
  /** `[n, V]` */
  slope: Tensor;
}

const last = { axis: -1, keepDims: true } as const;

/** A distribution of each row and its logarithm, `[n, V]` each. */
export interface Distribution {
  p: Tensor;
  log: Tensor;
}

export function distributionOf(log: Tensor): Distribution {
  return { p: exp(log), log };
}

/** `p · x`, 0 where p is 0; a p that is NaN stays. */
export function weighted(p: Tensor, x: Tensor): Tensor {
  return where(equal(p, 0), 0, mul(p, x));
}

/** Below the logarithm of any positive number. */
const LOG_FLOOR = -1e4;

/** `−Σ p log p` of each row, `[n, 1]`. Where p isn't 0 the floor changes nothing, and where it is the product is 0. */
export function entropyOf({ p, log }: Distribution): Tensor {
  return sum(mul(p, maximum(log, LOG_FLOOR)), last).neg();
}

/** The gradient with respect to the logits, from that with respect to the probabilities. */
function throughSoftmax(q: Tensor, g: Tensor): Tensor {
  const weightedSlope = weighted(q, g);
  return sub(weightedSlope, mul(q, sum(weightedSlope, last)));
}

/** `log(share · p + (1 − share) · q)` */
function logMixture(logP: Tensor, logQ: Tensor, share: number): Tensor {
  return logAddExp(logP.add(Math.log(share)), logQ.add(Math.log(1 - share)));
}

function softCrossEntropy(teacher: Distribution, student: Distribution): RowLoss {
  return { value: sum(weighted(teacher.p, student.log), last).neg(), slope: sub(student.p, teacher.p) };
}

function forwardKl(teacher: Distribution, student: Distribution): RowLoss {
  const ratio = sub(teacher.log, student.log);
  return { value: sum(weighted(teacher.p, ratio), last), slope: sub(student.p, teacher.p) };
}

function reverseKl(teacher: Distribution, student: Distribution): RowLoss {
  const ratio = sub(student.log, teacher.log);
  const value = sum(weighted(student.p, ratio), last);
  return { value, slope: weighted(student.p, sub(ratio, value)) };
}

function jsd(teacher: Distribution, student: Distribution, beta: number): RowLoss {
  if (beta === 0) return forwardKl(teacher, student);
  if (beta === 1) return reverseKl(teacher, student);
  const logM = logMixture(teacher.log, student.log, beta);
  const fromQ = sub(student.log, logM);
  const ofTeacher = weighted(teacher.p, sub(teacher.log, logM)).mul(beta);
  const value = sum(ofTeacher.add(weighted(student.p, fromQ).mul(1 - beta)), last);
  return { value, slope: throughSoftmax(student.p, fromQ.mul(1 - beta)) };
}

function skewedKl(teacher: Distribution, student: Distribution, alpha: number): RowLoss {
  if (alpha === 0) return forwardKl(teacher, student);
  const toP = sub(teacher.log, logMixture(teacher.log, student.log, alpha));
  const value = sum(weighted(teacher.p, toP), last);
  // p/m is at most 1/α, so the exponential can't overflow; NaN of −∞ − −∞ only stands where q is 0 too.
  return { value, slope: throughSoftmax(student.p, exp(toP).mul(alpha - 1)) };
}

function totalVariation(teacher: Distribution, student: Distribution): RowLoss {
  const difference = sub(student.p, teacher.p);
  const slope = throughSoftmax(student.p, sign(difference).mul(0.5));
  return { value: sum(abs(difference), last).mul(0.5), slope };
}

function logitMse(teacher: Distribution, student: Distribution): RowLoss {
  const centred = ({ log }: Distribution) => sub(log, mean(log, last));
  const difference = sub(centred(student), centred(teacher));
  return { value: mean(difference.square(), last), slope: difference.mul(2 / student.log.shape.at(-1)!) };
}

/** Value and slope of each row. */
export function divergenceOf(divergence: Divergence, teacher: Distribution, student: Distribution): RowLoss {
  switch (divergence.kind) {
    case "softCrossEntropy":
      return softCrossEntropy(teacher, student);
    case "forwardKl":
      return forwardKl(teacher, student);
    case "reverseKl":
      return reverseKl(teacher, student);
    case "jsd":
      return jsd(teacher, student, divergence.beta ?? 0.5);
    case "skewedKl":
      return skewedKl(teacher, student, divergence.alpha ?? 0.1);
    case "totalVariation":
      return totalVariation(teacher, student);
    case "logitMse":
      return logitMse(teacher, student);
  }
}

const kinds = ["softCrossEntropy", "forwardKl", "reverseKl", "jsd", "skewedKl", "totalVariation", "logitMse"];

/** @throws {OptionError} for an unknown kind or a parameter outside its range */
export function checkDivergence(where: string, divergence: Divergence): void {
  if (!kinds.includes(divergence?.kind)) {
    throw new OptionError(
      `[${where}] divergence.kind must be one of ${kinds.join(", ")}; received ${JSON.stringify(divergence?.kind)}.`,
    );
  }
  const check = (name: string, value: number, valid: boolean, range: string) => {
    if (!valid) throw new OptionError(`[${where}] divergence.${name} must be in ${range}; received ${value}.`);
  };
  if (divergence.kind === "jsd") {
    const { beta = 0.5 } = divergence;
    check("beta", beta, beta >= 0 && beta <= 1, "[0, 1]");
  }
  if (divergence.kind === "skewedKl") {
    const { alpha = 0.1 } = divergence;
    check("alpha", alpha, alpha >= 0 && alpha < 1, "[0, 1)");
  }
}

/** Whether a token that the teacher excludes makes it infinite. */
export function needsFullSupport(divergence: Divergence): boolean {
  if (divergence.kind === "jsd") return divergence.beta === 1;
  return divergence.kind === "reverseKl" || divergence.kind === "logitMse";
}

/**
 * How many tokens of each row make such a divergence infinite, `[n, 1]`: those of log-probability −∞ that the student gives a probability, and for logits
 * any, on either side.
 */
export function excludedTokens({ kind }: Divergence, teacher: Distribution, student: Distribution): Tensor {
  const excluded = ({ log }: Distribution) => equal(log, Number.NEGATIVE_INFINITY);
  const count = (mask: Tensor) => sum(mask.astype(student.log.dtype), last);
  if (kind === "logitMse") return add(count(excluded(teacher)), count(excluded(student)));
  return count(logicalAnd(excluded(teacher), greater(student.p, 0)));
}

/** Divergences that stay finite where the teacher excludes tokens, as advice. */
export const finiteDivergences = "forwardKl, jsd with beta below 1, skewedKl or softCrossEntropy";
