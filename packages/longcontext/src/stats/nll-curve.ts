/** Negative log-likelihood against position (arXiv:2403.05530 §5.2.1.1). */
import { OptionError } from "@llmeff/native/errors";
import { powerOfTwoAbove } from "./length-bins.js";
import { requireFinite } from "./require.js";

export interface NllPoint {
  /** Scored tokens, x. */
  position: number;
  /** Nats a token; null where no document is so long. */
  mean: number | null;
  /** Documents with at least x scored tokens, which are the ones averaged over. */
  documents: number;
}

export interface NllBin {
  /** Positions in `(low, high]`, counted from 1. */
  positions: [low: number, high: number];
  /** Nats a token, over all tokens of all documents in the bin. */
  mean: number;
  tokens: number;
}

/** `cumulative(x) = (1/x)·Σ_{i ≤ x} nll_i` for x = 1 … n. */
export function cumulativeNll(nll: ArrayLike<number>): Float64Array {
  requireFinite("cumulativeNll", "nll", nll);
  const means = new Float64Array(nll.length);
  let sum = 0;
  for (let i = 0; i < nll.length; i++) {
    sum += nll[i]!;
    means[i] = sum / (i + 1);
  }
  return means;
}

/**
 * Mean of the documents' cumulative NLL at each position.
 *
 * @param documents - each one's NLL of its scored tokens, in nats: all but the first, which has no context
 * @param options.positions - ascending; default 128·2^j up to the longest document
 */
export function nllCurve(
  documents: readonly ArrayLike<number>[],
  options: { positions?: readonly number[] } = {},
): NllPoint[] {
  const positions = options.positions ?? doublingPositions(Math.max(0, ...documents.map(({ length }) => length)));
  requirePositions(positions);
  const sums = positions.map(() => 0);
  const counts = positions.map(() => 0);
  for (const nll of documents) {
    const cumulative = cumulativeNll(nll);
    for (const [k, position] of positions.entries()) {
      if (position > cumulative.length) break;
      sums[k]! += cumulative[position - 1]!;
      counts[k]!++;
    }
  }
  return positions.map((position, k) => ({
    position,
    mean: counts[k]! > 0 ? sums[k]! / counts[k]! : null,
    documents: counts[k]!,
  }));
}

/** Mean NLL by position in bins of powers of two, not cumulative, over all tokens of all documents. */
export function nllBins(documents: readonly ArrayLike<number>[]): NllBin[] {
  const bins = new Map<number, { sum: number; tokens: number }>();
  for (const nll of documents) {
    requireFinite("nllBins", "nll", nll);
    for (let low = 0; low < nll.length; ) {
      const high = powerOfTwoAbove(low + 1);
      const bin = bins.get(high) ?? { sum: 0, tokens: 0 };
      const end = Math.min(high, nll.length);
      for (let i = low; i < end; i++) bin.sum += nll[i]!;
      bin.tokens += end - low;
      bins.set(high, bin);
      low = end;
    }
  }
  return [...bins]
    .sort(([x], [y]) => x - y)
    .map(([high, { sum, tokens }]) => ({ positions: [high === 1 ? 0 : high / 2, high], mean: sum / tokens, tokens }));
}

function doublingPositions(longest: number): number[] {
  const positions: number[] = [];
  for (let position = 128; position <= longest; position *= 2) positions.push(position);
  return positions;
}

function requirePositions(positions: readonly number[]): void {
  for (const [i, position] of positions.entries()) {
    if (!Number.isSafeInteger(position) || position < 1 || (i > 0 && position <= positions[i - 1]!)) {
      throw new OptionError(
        `[nllCurve] positions must be integers of at least 1, ascending; received ${position} at index ${i}.`,
      );
    }
  }
}
