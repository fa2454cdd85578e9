/** Logits that grow with the number of keys, so that softmax over more of them is as sharp. */
import { add, concat, cumsum, log, maximum, mul, ones, reshape, Tensor } from "@llmeff/tensor";
import type { PositionRange } from "./rotary.js";

/** Keys that each query sees, counted on the device, since a captured step can't take numbers from here. */
function counted(ranges: readonly PositionRange[], dtype: "float32" | "float64", { device }: Tensor): Tensor {
  const counts = ranges.map(({ start, length }) => add(cumsum(ones([length], { dtype, device }), 0), start));
  return counts.length === 1 ? counts[0]! : concat(counts);
}

/**
 * Queries times `max(1, ln n / ln scaleFrom)`, where the query at position `t` sees `n = t + 1` keys.
 *
 * The share of one key among n others whose logits lie Δ below is `1 / (1 + n e^-Δ)`: it stays the same if Δ grows with `ln n`.
 *
 * @param q - `[B, T, H, D]`
 * @param places - the positions of the sequences, whose queries follow one another; or of each query, int32 `[T]`
 * @param scaleFrom - undefined: as they are
 */
export function lengthScaled(
  q: Tensor,
  places: readonly PositionRange[] | Tensor,
  scaleFrom: number | undefined,
): Tensor {
  if (scaleFrom === undefined) return q;
  if (!(places instanceof Tensor) && places.every(({ start, length }) => start + length <= scaleFrom)) return q;
  const dtype = q.dtype === "float64" ? "float64" : "float32";
  const seen = places instanceof Tensor ? add(places.astype(dtype), 1) : counted(places, dtype, q);
  const factor = maximum(mul(log(seen), 1 / Math.log(scaleFrom)), 1);
  return mul(q, reshape(factor, [q.shape[1]!, 1, 1]).astype(q.dtype));
}
