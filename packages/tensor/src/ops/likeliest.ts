import { engine, ShapeError } from "@llmeff/native";
import { commonDevice, onDevice } from "../device.js";
import { accumulationDType } from "../dtype.js";
import { formatShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating, checkIds, rows } from "./arguments.js";

/**
 * The likeliest id of each row of scores, in one pass: written into `ids`, as `argMax` finds it, and given with its score and the row's
 * log-sum-exp, so that all three are read at once. No gradient flows.
 *
 * @param ids - int32 `[N]`, contiguous; changed in place
 * @param logits - `[N, V]`, neither empty; `V` at most 2²⁴, up to which ids are exact in float32
 * @returns `[3, N]` of float32, or float64 of that: ids, their scores, log-sum-exps
 *
 * @example
 * const found = likeliestInto(tokens, model.lastLogits(params, tokens, next)); // and the next pass begins with `tokens`
 */
export function likeliestInto(ids: Tensor, logits: Tensor): Tensor {
  const where = "likeliestInto";
  checkIds(where, "ids", ids);
  checkFloating(where, { logits });
  const [N, V] = logits.shape as [number, number];
  const fits = logits.rank === 2 && N > 0 && N < 2 ** 16 && V > 0 && V <= 2 ** 24;
  if (!fits || ids.rank !== 1 || ids.shape[0] !== N || !ids.isContiguous) {
    throw new ShapeError(
      `[${where}] expected logits [N, V] and contiguous ids [N], with N in 1..65535 and V in 1..2^24; received ${formatShape(logits.shape)} and ${formatShape(ids.shape)}.`,
    );
  }
  return onDevice(commonDevice(where, [logits, ids], ["logits", "ids"]), () => {
    const found = Tensor.allocate(accumulationDType(logits.dtype), [3, N]);
    const even = rows(logits);
    engine().op.likeliest(even.handle, ids.handle, found.handle);
    if (even !== logits) even.dispose();
    return found;
  });
}
