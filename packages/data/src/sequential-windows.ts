/** Evaluation windows: the corpus from front to back, every token but the first predicted exactly once. */
import { type Batch, type BatchSet, IGNORE_INDEX, requireInteger } from "./batch.js";
import { requireTokens, type TokenArray } from "./token-dataset.js";

export interface SequentialWindowsOptions {
  /** T */
  seqLen: number;
  /** B; the last batch may have fewer rows. */
  batchSize: number;
  /** Stop after so many windows, for a quick estimate; default all. */
  maxWindows?: number;
}

/**
 * Non-overlapping windows of `seqLen` targets in the order of the text. The last window is filled up with token 0 and
 * targets `IGNORE_INDEX`, so that the mean loss weighs every token of the corpus alike.
 */
export function sequentialWindows(tokens: TokenArray, options: SequentialWindowsOptions): BatchSet {
  const seqLen = requireInteger("sequentialWindows", "seqLen", options.seqLen, 1);
  const batchSize = requireInteger("sequentialWindows", "batchSize", options.batchSize, 1);
  const { maxWindows } = options;
  if (maxWindows !== undefined) requireInteger("sequentialWindows", "maxWindows", maxWindows, 1);
  requireTokens("sequentialWindows", tokens, 2);
  const predicted = tokens.length - 1;
  const windowCount = Math.min(maxWindows ?? Number.POSITIVE_INFINITY, Math.ceil(predicted / seqLen));
  return {
    targetCount: Math.min(predicted, windowCount * seqLen),
    *[Symbol.iterator]() {
      for (let first = 0; first < windowCount; first += batchSize) {
        yield windowBatch(tokens, first, Math.min(batchSize, windowCount - first), seqLen);
      }
    },
  };
}

function windowBatch(tokens: TokenArray, first: number, batchSize: number, seqLen: number): Batch {
  const inputs = new Int32Array(batchSize * seqLen);
  const targets = new Int32Array(batchSize * seqLen).fill(IGNORE_INDEX);
  for (let b = 0; b < batchSize; b++) {
    const start = (first + b) * seqLen;
    const end = Math.min(start + seqLen, tokens.length - 1);
    inputs.set(tokens.subarray(start, end), b * seqLen);
    targets.set(tokens.subarray(start + 1, end + 1), b * seqLen);
  }
  return { tokens: inputs, targets, batchSize, seqLen };
}
