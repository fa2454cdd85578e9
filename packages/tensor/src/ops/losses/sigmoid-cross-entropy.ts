import { defineOp } from "../../autograd.js";
import { scope } from "../../scope.js";
import { noGrad } from "../../tape.js";
import type { Tensor } from "../../tensor.js";
import { checkFloating } from "../arguments.js";
import { widened } from "../cast.js";
import { sigmoid, softplus } from "../unary.js";
import { checkReduction, checkSameShape, type LossOptions, reduceLosses, spreadLoss } from "./reduction.js";

export interface SigmoidCrossEntropyOptions extends LossOptions {
  /** Multiplies each element's loss; broadcasts to the shape of the logits. The mean is still over the number of elements. */
  weights?: Tensor;
  /** Multiplies the part of the positive class; broadcasts to the shape of the logits. */
  posWeight?: Tensor;
}

/** The weights of the positive and of the negative class: `y · posWeight · weights` and `(1 − y) · weights`. */
function classWeights(targets: Tensor, { weights, posWeight }: SigmoidCrossEntropyOptions): [Tensor, Tensor] {
  const weighted = (x: Tensor, by: Tensor | undefined) => (by ? x.mul(widened(by)) : x);
  const yes = widened(targets);
  return [weighted(weighted(yes, posWeight), weights), weighted(yes.neg().add(1), weights)];
}

// Both classes' terms are sums of positive numbers, so that nothing cancels.
const sigmoidCrossEntropyOp = defineOp<Required<LossOptions>>({
  name: "sigmoidCrossEntropy",
  forward(context, [z, positive, negative], { reduction }) {
    context.save(z!, positive!, negative!);
    return reduceLosses(positive!.mul(softplus(z!.neg())).add(negative!.mul(softplus(z!))), reduction);
  },
  backward({ saved: [z, positive, negative], options: { reduction } }, dout) {
    const slope = negative!.mul(sigmoid(z!)).sub(positive!.mul(sigmoid(z!.neg())));
    return [slope.mul(spreadLoss(dout, reduction, z!.size)), null, null];
  },
});

/**
 * Cross-entropy of yes-or-no questions, from their logits: `−w · (p · y · ln σ(z) + (1 − y) · ln(1 − σ(z)))`, without overflow.
 *
 * @param logits - any shape
 * @param targets - the same shape and dtype, probabilities of yes; constants: no gradient flows to them or to the weights
 *
 * @example
 * sigmoidCrossEntropy(logits, labels, { posWeight: tensor(3) });
 */
export function sigmoidCrossEntropy(logits: Tensor, targets: Tensor, options: SigmoidCrossEntropyOptions = {}): Tensor {
  const { reduction = "mean", weights, posWeight } = options;
  checkFloating("sigmoidCrossEntropy", {
    logits,
    targets,
    ...(weights && { weights }),
    ...(posWeight && { posWeight }),
  });
  checkSameShape("sigmoidCrossEntropy", { logits, targets });
  checkReduction("sigmoidCrossEntropy", reduction);
  return scope(() => {
    const [positive, negative] = noGrad(() => classWeights(targets, options));
    return sigmoidCrossEntropyOp([widened(logits), positive, negative], { reduction });
  });
}
