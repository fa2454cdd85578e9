/** Logits that grow with the number of keys, so that softmax over more of them is as sharp. */
import { add, cumsum, log, maximum, mul, ones, reshape, type Tensor } from "@llmeff/tensor";

/**
 * Queries times `max(1, ln n / ln scaleFrom)`, where the query at position `t` sees `n = t + 1` keys.
 *
 * The share of one key among n others whose logits lie Δ below is `1 / (1 + n e^-Δ)`: it stays the same if Δ grows with `ln n`.
 *
 * @param q - `[B, T, H, D]`
 * @param start - position of the first query
 * @param scaleFrom - undefined: as they are
 */
export function lengthScaled(q: Tensor, start: number, scaleFrom: number | undefined): Tensor {
  const T = q.shape[1]!;
  if (scaleFrom === undefined || start + T <= scaleFrom) return q;
  const dtype = q.dtype === "float64" ? "float64" : "float32";
  // Counted on the device, since a captured step can't take numbers from here.
  const seen = add(cumsum(ones([T], { dtype, device: q.device }), 0), start);
  const factor = maximum(mul(log(seen), 1 / Math.log(scaleFrom)), 1);
  return mul(q, reshape(factor, [T, 1, 1]).astype(q.dtype));
}
