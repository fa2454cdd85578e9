/**
 * Where assignments of tokens to experts go: their rows lie packed by expert, in choice-major order, and what finds its expert full has none
 * (models.md §4.2). All of it is computed on the device: nothing is read by the host, so that a step with experts can be captured.
 */
import {
  add,
  argsort,
  cumsum,
  floorDivide,
  gather,
  gatherSum,
  indexSelect,
  less,
  lessEqual,
  maximum,
  minimum,
  OptionError,
  ones,
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

/** Rows of tokens, packed by expert: those of expert 0 first, and behind those of the last one some that belong to none. */
export interface Packing {
  /** int32 `[E]`: rows of each expert. */
  counts: Tensor;
  /** int32 `[N, m]`: rows of each token; -1 for one that has fewer. */
  place: Tensor;
  /** int32 `[R, 1]`: the position `n · m + j` in `place` that names the row; -1 for rows of no expert. */
  source: Tensor;
}

/** The rows of the `A = N · k` assignments. An expert's are in choice-major order: first choices in the order of the tokens, then second ones. */
export interface Dispatch extends Packing {
  /** int32 `[N, k]`: place among those of its expert, also beyond the capacity. */
  slots: Tensor;
  /** int32 `[]`: assignments without a row. */
  dropped: Tensor;
}

/** `ceil(factor · N · k / E)`, at most `N`: an expert gets no token twice. Without a factor `N`: nothing is dropped. */
export function expertCapacity(tokens: number, topK: number, experts: number, factor?: number): number {
  if (factor === undefined) return tokens;
  // Rounding errors of the product must not add a place: 1.1 · 10 is more than 11.
  return Math.min(tokens, Math.ceil(((factor * tokens * topK) / experts) * (1 - 1e-12)));
}

/** `0, 1, …`, counted on the device: numbers from JavaScript would have no place in a captured step. */
export function countUp(size: number, device: Tensor["device"]): Tensor {
  return sub(cumsum(ones([size], { dtype: "int32", device }), 0), 1);
}

/** Where each expert's rows begin. */
const starts = (counts: Tensor) => sub(cumsum(counts, 0), counts);

/**
 * Gives every assignment its row: a later token's first choice comes before an earlier token's second one. What finds its expert full is dropped.
 *
 * @param indices - int32 `[N, k]`: experts of each token
 * @param load - int32 `[E]`: how often each expert is among them
 * @param capacity - the most rows of an expert
 * @throws {OptionError} if `capacity` is not a positive integer
 */
export function dispatchTokens(indices: Tensor, load: Tensor, capacity: number): Dispatch {
  if (!Number.isSafeInteger(capacity) || capacity <= 0) {
    throw new OptionError(`[dispatchTokens] capacity must be a positive integer; received ${capacity}.`);
  }
  const [N, k] = indices.shape as [number, number];
  const A = N * k;
  const none = zeros([A], { dtype: "int32", device: indices.device });
  const numbers = countUp(A, indices.device);
  const ofTokens = (choices: Tensor) => transpose(reshape(choices, [k, N]));
  const chosen = reshape(transpose(indices), [A]);
  // In the order of their experts, and where each is in it.
  const order = argsort(chosen);
  const position = scatterAdd(none, 0, order, numbers);
  const slot = sub(position, gather(starts(load), 0, chosen));
  const slots = ofTokens(slot);
  // n · k + j of the assignments in choice-major order, and so sorted by expert.
  const names = reshape(transpose(reshape(numbers, [N, k])), [A]);
  const sorted = indexSelect(names, 0, order);
  if (capacity >= N) {
    const source = reshape(sorted, [A, 1]);
    return { counts: load, place: ofTokens(position), source, slots, dropped: reshape(slice(none, 0, 0, 1), []) };
  }
  const counts = minimum(load, capacity);
  const rows = Math.min(A, load.size * capacity);
  const kept = less(slot, capacity);
  const place = slot.add(gather(starts(counts), 0, chosen));
  // A row's expert is the first one whose rows end behind it; its assignments begin elsewhere among the sorted ones.
  const row = countUp(rows, indices.device);
  const ended = lessEqual(cumsum(counts, 0), reshape(row, [rows, 1])).astype("float32");
  const expert = sum(ended, { axis: 1 }).astype("int32");
  const used = less(expert, load.size);
  const begin = gather(sub(starts(load), starts(counts)), 0, where(used, expert, 0));
  const source = where(used, gather(sorted, 0, where(used, add(row, begin), 0)), -1);
  return {
    counts,
    place: ofTokens(where(kept, place, -1)),
    source: reshape(source, [rows, 1]),
    slots,
    dropped: reshape(slice(cumsum(maximum(sub(load, capacity), 0), 0), 0, -1), []),
  };
}

/** Rows `[N, C]` of the tokens, packed: `[R, C]`. */
export function gatherTokens(x: Tensor, { place, source }: Packing): Tensor {
  return gatherSum(x, floorDivide(source, place.shape[1]!), place);
}

/** Each token's sum of what its experts made of it, by its weights `[N, m]`; what was dropped counts 0. Added up in the order of the weights. */
export function combineTokens(y: Tensor, weights: Tensor, { place, source }: Packing): Tensor {
  return gatherSum(y, place, source, weights);
}
