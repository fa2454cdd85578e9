import { ShapeError } from "@llmeff/native";
import { defineOp } from "../../autograd.js";
import { scope } from "../../scope.js";
import type { Tensor } from "../../tensor.js";
import { checkFloating } from "../arguments.js";
import { equal } from "../binary.js";
import { widened } from "../cast.js";
import { sum } from "../reduce.js";
import { exp } from "../unary.js";
import { where } from "../where.js";
import { checkReduction, checkSameShape, type LossOptions, reduceLosses, spreadLoss } from "./reduction.js";

/** `ln p − ln q`, 0 where p is 0: there the product with p is 0 whatever q is. */
function logRatio(logP: Tensor, logQ: Tensor): Tensor {
  return where(equal(logP, -Infinity), 0, logP.sub(logQ));
}

const klDivergenceOp = defineOp<Required<LossOptions>>({
  name: "klDivergence",
  forward(context, [logP, logQ], { reduction }) {
    context.save(logP!, logQ!);
    return reduceLosses(sum(exp(logP!).mul(logRatio(logP!, logQ!)), { axis: -1 }), reduction);
  },
  backward({ needs, saved: [logP, logQ], shapes: [shape], options: { reduction } }, dout) {
    const rows = shape!.slice(0, -1).reduce((a, b) => a * b, 1);
    const spread = spreadLoss(dout, reduction, rows);
    const p = exp(logP!).mul(reduction === "none" ? spread.reshape([...spread.shape, 1]) : spread);
    return [needs[0] ? p.mul(logRatio(logP!, logQ!).add(1)) : null, needs[1] ? p.neg() : null];
  },
});

/**
 * `KL(p ‖ q) = Σ p (ln p − ln q)` over the last axis, of log-probabilities as `logSoftmax` makes them. The mean is over the rows (PyTorch's
 * "batchmean"); "none" gives one number a row.
 *
 * @param logP - `[…, N]`, the distribution that the expectation is under: the teacher's
 * @param logQ - `[…, N]`, the one that is compared with it: the student's. PyTorch's `kl_div` takes it first
 *
 * @example
 * klDivergence(logSoftmax(teacherLogits), logSoftmax(studentLogits));
 */
export function klDivergence(logP: Tensor, logQ: Tensor, options: LossOptions = {}): Tensor {
  const { reduction = "mean" } = options;
  checkFloating("klDivergence", { logP, logQ });
  checkSameShape("klDivergence", { logP, logQ });
  checkReduction("klDivergence", reduction);
  if (logP.rank === 0) throw new ShapeError("[klDivergence] expected at least one axis; received scalars.");
  return scope(() => klDivergenceOp([widened(logP), widened(logQ)], { reduction }));
}
