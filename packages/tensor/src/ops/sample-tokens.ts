import { DTypeError, engine, ShapeError } from "@llmeff/native";
import { commonDevice, onDevice } from "../device.js";
import { accumulationDType } from "../dtype.js";
import { formatShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { checkFloating, checkIds, checkTensor, rows } from "./arguments.js";

/**
 * A token of each row of scores, drawn of those that temperature, top-k, top-p and min-p keep: written into `ids`, and given with its score. No
 * gradient flows.
 *
 * By row of `filters`, each applied to what those before it left: `k` keeps scores at least as large as the k-th; of the weights
 * `w = exp((score − largest) / temperature)`, `p` keeps the largest while those before weigh less than `p` of all, of equal ones the first; `minP`
 * keeps `w ≥ minP`. The token is the first for which the weights up to it are more than `u` of all that are kept. On the CPU weights are
 * float64, on a GPU they are whole multiples of `2^−(62 − ⌈log₂ V⌉)`, so that their sums have no rounding, whatever their order. Given the same scores,
 * devices draw the same token up to near ties and the fineness of these sums: where `u` or a filter falls next to a boundary between two, they may
 * differ, and a GPU draws none that weighs less than such a step.
 *
 * @param ids - int32 `[N]`, contiguous; changed in place
 * @param logits - `[N, V]`, neither empty; `V` at most 2²⁴, up to which ids are exact in float32
 * @param filters - float64 `[N, 4]`, contiguous: temperature (0 takes the likeliest token), k (0 or ≥ V for all), p in (0, 1], minP in [0, 1]. The
 * values are on the device and aren't checked: others, as k < 0, p = 0 or minP > 1, give some token.
 * @param u - float64 `[N]` in [0, 1), contiguous
 * @returns `[4, N]` of float32, or float64 of that: ids, their scores, the rows' log-sum-exps, the largest scores. Where the largest is NaN or infinite
 * its own id is taken: by it the caller tells that nothing could be drawn.
 *
 * @example
 * const filters = tensor(Float64Array.of(0.8, 40, 0.95, 0), { shape: [1, 4] });
 * const drawn = sampleTokensInto(tokens, model.lastLogits(params, tokens, next), filters, tensor(Float64Array.of(Math.random())));
 */
export function sampleTokensInto(ids: Tensor, logits: Tensor, filters: Tensor, u: Tensor): Tensor {
  const where = "sampleTokensInto";
  checkIds(where, "ids", ids);
  checkFloating(where, { logits });
  for (const [name, tensor] of Object.entries({ filters, u })) {
    checkTensor(where, name, tensor);
    if (tensor.dtype !== "float64") {
      throw new DTypeError(`[${where}] ${name} must be float64; received ${tensor.dtype}. Use a Float64Array.`);
    }
  }
  const [N, V] = logits.shape as [number, number];
  const sized = logits.rank === 2 && N > 0 && N < 2 ** 16 && V > 0 && V <= 2 ** 24;
  const forms: [Tensor, number[]][] = [
    [ids, [N]],
    [filters, [N, 4]],
    [u, [N]],
  ];
  const fit = forms.every(([x, shape]) => x.isContiguous && formatShape(x.shape) === formatShape(shape));
  if (!sized || !fit) {
    const received = [logits, ids, filters, u].map(({ shape }) => formatShape(shape)).join(", ");
    throw new ShapeError(
      `[${where}] expected logits [N, V], and contiguous ids [N], filters [N, 4] and u [N], with N in 1..65535 and V in 1..2^24; received ${received}.`,
    );
  }
  const device = commonDevice(where, [logits, ids, filters, u], ["logits", "ids", "filters", "u"]);
  return onDevice(device, () => {
    const found = Tensor.allocate(accumulationDType(logits.dtype), [4, N]);
    const even = rows(logits);
    engine().op.sampleTokens(even.handle, filters.handle, u.handle, ids.handle, found.handle);
    if (even !== logits) even.dispose();
    return found;
  });
}
