/**
 * Where assignments of tokens to experts go: each expert has `C` places, filled in choice-major order (models.md §4.2). All of it is computed on
 * the device: nothing is read by the host, so that a step with experts can be captured.
 */
import {
  add,
  argsort,
  cumsum,
  gather,
  indexSelect,
  less,
  maximum,
  minimum,
  mul,
  OptionError,
  ones,
  remainder,
  reshape,
  scatterAdd,
  slice,
  sub,
  sum,
  type Tensor,
  transpose,
  where,
  zeros,
} from "@llmeff/tensor";

/** The places of the `A = N · k` assignments, in choice-major order: all first choices in the order of the tokens, then all second ones. */
export interface Dispatch {
  /** Places of each expert. */
  capacity: number;
  /** int32 `[A]`: place among those of its expert, also beyond `capacity`. */
  slot: Tensor;
  /** bool `[A]`: whether there is such a place. */
  kept: Tensor;
  /** int32 `[A]`: row of the experts' inputs and outputs; some row for those dropped. */
  place: Tensor;
  /** int32 `[E · C]`: the token in each place; some token in those that stay empty. */
  tokens: Tensor;
  /** int32 `[]`: assignments without a place. */
  dropped: Tensor;
}

/** `ceil(factor · N · k / E)`, at most `N`: an expert gets no token twice. Without a factor `N`: nothing is dropped. */
export function expertCapacity(tokens: number, topK: number, experts: number, factor?: number): number {
  if (factor === undefined) return tokens;
  // Rounding errors of the product must not add a place: 1.1 · 10 is more than 11.
  return Math.min(tokens, Math.ceil(((factor * tokens * topK) / experts) * (1 - 1e-12)));
}

/**
 * Gives every assignment its place: a later token's first choice comes before an earlier token's second one. What finds its expert full is dropped.
 *
 * @param indices - int32 `[N, k]`: experts of each token
 * @param load - int32 `[E]`: how often each expert is among them
 * @throws {OptionError} if `capacity` is not a positive integer
 */
export function dispatchTokens(indices: Tensor, load: Tensor, capacity: number): Dispatch {
  if (!Number.isSafeInteger(capacity) || capacity <= 0) {
    throw new OptionError(`[dispatchTokens] capacity must be a positive integer; received ${capacity}.`);
  }
  const [N, k] = indices.shape as [number, number];
  const A = N * k;
  const { device } = indices;
  const int32 = { dtype: "int32", device } as const;
  const chosen = reshape(transpose(indices), [A]);
  const order = argsort(chosen);
  // 0, 1, …, counted on the device: numbers from JavaScript would have no place in a captured step.
  const numbers = sub(cumsum(ones([A], int32), 0), 1);
  const starts = sub(cumsum(load, 0), load);
  const ranks = sub(numbers, gather(starts, 0, gather(chosen, 0, order)));
  const slot = scatterAdd(zeros([A], int32), 0, order, ranks);
  const kept = less(slot, capacity);
  // Those dropped meet in one more row behind all others.
  const last = load.size * capacity;
  const target = where(kept, add(mul(chosen, capacity), slot), last);
  const tokenOf = remainder(numbers, N);
  return {
    capacity,
    slot,
    kept,
    place: minimum(target, last - 1),
    tokens: slice(scatterAdd(zeros([last + 1], int32), 0, target, tokenOf), 0, 0, last),
    dropped: reshape(slice(cumsum(maximum(sub(load, capacity), 0), 0), 0, -1), []),
  };
}

/** Rows `[N, C]` of the tokens, in the places of the experts: `[E, capacity, C]`. */
export function gatherTokens(x: Tensor, { tokens, capacity }: Dispatch): Tensor {
  return reshape(indexSelect(x, 0, tokens), [tokens.size / capacity, capacity, x.shape[1]!]);
}

/** Each token's sum of what its experts made of it, by its gates `[N, k]`; what was dropped counts 0. Added up in the order of the choices. */
export function combineTokens(y: Tensor, gates: Tensor, { place, kept }: Dispatch): Tensor {
  const [N, k] = gates.shape as [number, number];
  const width = y.shape[2]!;
  const weights = where(kept, reshape(transpose(gates), [N * k]), 0).astype(y.dtype);
  const rows = indexSelect(reshape(y, [y.shape[0]! * y.shape[1]!, width]), 0, place);
  return sum(reshape(mul(rows, reshape(weights, [N * k, 1])), [k, N, width]), { axis: 0 });
}
