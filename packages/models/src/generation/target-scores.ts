/** How likely a model holds tokens to be that are already known. */
import { accumulationDType, gather, logSumExp, scope, slice, type Tensor, tensor, topK } from "@llmeff/tensor";
import type { GeneratedToken } from "./options.js";

/** Known tokens that follow the first of the new ones. */
export interface Targets {
  ids: Int32Array;
  /** Of the likeliest tokens in their places, how many are wanted. */
  top: number;
}

/** Logits that exist at a time: of a vocabulary of 131,072 those of 32 tokens, 16 MiB of float32. */
const mostLogits = 2 ** 22;

/**
 * Scores of targets, computed in blocks of rows: all logits of a long prompt would take more memory than the model. Waits for the device between them.
 *
 * @param hidden - `[T, C]`, of which the first rows are those before the targets
 * @param head - from rows `[n, C]` to logits `[n, V]`
 * @param vocabSize - ids from here on are left out
 */
export async function targetScores(
  hidden: Tensor,
  head: (rows: Tensor) => Tensor,
  { ids, top }: Targets,
  vocabSize: number,
): Promise<GeneratedToken[]> {
  const rowsAtATime = Math.max(1, Math.floor(mostLogits / vocabSize));
  const found: GeneratedToken[] = [];
  for (let from = 0; from < ids.length; from += rowsAtATime) {
    const block = ids.subarray(from, from + rowsAtATime);
    const results = scope(() => {
      const scores = slice(head(slice(hidden, 0, from, from + block.length)), 1, 0, vocabSize);
      return reduced(scores.astype(accumulationDType(scores.dtype)), block, top);
    });
    for (const token of await read(results, block, top)) found.push(token);
  }
  return found;
}

/** Of logits `[n, V]` those of the targets and the log-sum-exps, and the `top` largest with their ids. */
function reduced(logits: Tensor, ids: Int32Array, top: number): Tensor[] {
  const positions = tensor(ids, { shape: [ids.length, 1], device: logits.device });
  const own = [gather(logits, 1, positions), logSumExp(logits, { axis: 1 })];
  if (top === 0) return own;
  const { values, indices } = topK(logits, top);
  return [...own, values, indices];
}

async function read(results: readonly Tensor[], ids: Int32Array, top: number): Promise<GeneratedToken[]> {
  try {
    const [own, sums, values, indices] = (await Promise.all(results.map((x) => x.data()))) as Float32Array[];
    return Array.from(ids, (id, row) => ({
      id,
      logProb: own![row]! - sums![row]!,
      top: Array.from({ length: top }, (_, i) => ({
        id: indices![row * top + i]!,
        logProb: values![row * top + i]! - sums![row]!,
      })),
    }));
  } finally {
    for (const x of results) x.dispose();
  }
}
