/**
 * Divergences between a teacher's distribution p and a student's q over the vocabulary, each with its gradient in closed form (distillation.md §5).
 *
 * All take log-probabilities, from which constants that were added to the logits are gone, and give for each row the value and its slope with respect
 * to the student's logits at its temperature. Where p or q is 0 its term is 0, whatever its logarithm: `0 · log 0 = 0`.
 */
import {
  abs,
  exp,
  greater,
  logAddExp,
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

/** `p · x`, 0 where p is 0. */
export function weighted(p: Tensor, x: Tensor): Tensor {
  return where(greater(p, 0), mul(p, x), 0);
}

/** `−Σ p log p` of each row, `[n, 1]`. */
export function entropyOf(logP: Tensor): Tensor {
  return sum(weighted(exp(logP), logP), last).neg();
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

function softCrossEntropy(logP: Tensor, logQ: Tensor): RowLoss {
  const p = exp(logP);
  return { value: sum(weighted(p, logQ), last).neg(), slope: sub(exp(logQ), p) };
}

function forwardKl(logP: Tensor, logQ: Tensor): RowLoss {
  const p = exp(logP);
  return { value: sum(weighted(p, sub(logP, logQ)), last), slope: sub(exp(logQ), p) };
}

function reverseKl(logP: Tensor, logQ: Tensor): RowLoss {
  const q = exp(logQ);
  const ratio = sub(logQ, logP);
  const value = sum(weighted(q, ratio), last);
  return { value, slope: weighted(q, sub(ratio, value)) };
}

function jsd(logP: Tensor, logQ: Tensor, beta: number): RowLoss {
  if (beta === 0) return forwardKl(logP, logQ);
  if (beta === 1) return reverseKl(logP, logQ);
  const [p, q] = [exp(logP), exp(logQ)];
  const logM = logMixture(logP, logQ, beta);
  const fromQ = sub(logQ, logM);
  const value = sum(
    weighted(p, sub(logP, logM))
      .mul(beta)
      .add(weighted(q, fromQ).mul(1 - beta)),
    last,
  );
  return { value, slope: throughSoftmax(q, fromQ.mul(1 - beta)) };
}

function skewedKl(logP: Tensor, logQ: Tensor, alpha: number): RowLoss {
  if (alpha === 0) return forwardKl(logP, logQ);
  const logM = logMixture(logP, logQ, alpha);
  const toP = sub(logP, logM);
  const value = sum(weighted(exp(logP), toP), last);
  // p/m is at most 1/α, so the exponential can't overflow; NaN of −∞ − −∞ only stands where q is 0 too.
  return { value, slope: throughSoftmax(exp(logQ), exp(toP).mul(alpha - 1)) };
}

function totalVariation(logP: Tensor, logQ: Tensor): RowLoss {
  const q = exp(logQ);
  const difference = sub(q, exp(logP));
  return { value: sum(abs(difference), last).mul(0.5), slope: throughSoftmax(q, sign(difference).mul(0.5)) };
}

function logitMse(logP: Tensor, logQ: Tensor): RowLoss {
  const centred = (x: Tensor) => sub(x, mean(x, last));
  const difference = sub(centred(logQ), centred(logP));
  return { value: mean(difference.square(), last), slope: difference.mul(2 / logQ.shape.at(-1)!) };
}

/**
 * Value and slope of each row.
 *
 * @param logP - teacher, `[n, V]`, normalised
 * @param logQ - student, `[n, V]`, normalised
 */
export function divergenceOf(divergence: Divergence, logP: Tensor, logQ: Tensor): RowLoss {
  switch (divergence.kind) {
    case "softCrossEntropy":
      return softCrossEntropy(logP, logQ);
    case "forwardKl":
      return forwardKl(logP, logQ);
    case "reverseKl":
      return reverseKl(logP, logQ);
    case "jsd":
      return jsd(logP, logQ, divergence.beta ?? 0.5);
    case "skewedKl":
      return skewedKl(logP, logQ, divergence.alpha ?? 0.1);
    case "totalVariation":
      return totalVariation(logP, logQ);
    case "logitMse":
      return logitMse(logP, logQ);
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
