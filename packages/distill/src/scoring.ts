/**
 * How hard a text is for a small model, for the selection of SALT_DS (distillation.md §2): challenging, yet learnable. The scorer is an early checkpoint
 * of the teacher.
 */
import { type Batch, IGNORE_INDEX, Random, type Seed } from "@llmeff/data";
import {
  concat,
  gather,
  greater,
  logSoftmax,
  maximum,
  noGrad,
  OptionError,
  scope,
  slice,
  sum,
  type Tensor,
  tensor,
} from "@llmeff/tensor";
import { distributionOf, entropyOf } from "./divergences.js";
import { inputsOf, scoresBy, type Teacher } from "./model.js";
import { inRowBlocks, scoresOf, type TeacherScores, vocabOf, widened } from "./targets.js";

/** Of each target of a sequence. */
export interface TokenStatistics {
  /** `−log p(target)` */
  losses: Float64Array;
  /** Tokens that the scorer puts strictly before the target. */
  ranks: Float64Array;
  /** Of the scorer's distribution, in nats. */
  entropies: Float64Array;
}

export type Hardness =
  /** Median of the losses of the targets among the scorer's k likeliest: SALT_DS's. Default k 10. */
  | { kind: "filteredMedian"; k?: number }
  /** Mean of those after `trim` of them at either end; default k 10, trim 0. */
  | { kind: "filteredMean"; k?: number; trim?: number }
  | { kind: "median" }
  | { kind: "mean" }
  /** Mean entropy of the scorer. */
  | { kind: "entropy" }
  /** By chance, as a control. */
  | { kind: "random"; seed?: Seed };

const last = { axis: -1, keepDims: true } as const;
/**
 * Losses, ranks and entropies of targets under a scorer's distribution. Dropped are targets of `IGNORE_INDEX`.
 *
 * @param scores - logits `[…, V]` or what they are made of
 * @param targets - int32 `[…]`
 * @returns one entry for each of `sequences` equal parts of the rows
 */
export async function tokenStatistics(
  scores: TeacherScores,
  targets: Int32Array,
  sequences: number,
): Promise<TokenStatistics[]> {
  using rows = noGrad(() => scope(() => statisticRows(scores, targets)));
  const values = await rows.data();
  const length = targets.length / sequences;
  return Array.from({ length: sequences }, (_, sequence) => {
    const places = Array.from({ length }, (_, t) => sequence * length + t).filter((at) => targets[at] !== IGNORE_INDEX);
    const column = (i: number) => Float64Array.from(places, (at) => values[3 * at + i]!);
    return { losses: column(0), ranks: column(1), entropies: column(2) };
  });
}

/** `[N, 3]` */
function statisticRows(scores: TeacherScores, targets: Int32Array): Tensor {
  const { device } = "logits" in scores ? scores.logits : scores.hidden;
  const ids = maximum(tensor(targets, { device }), 0).unsqueeze(-1);
  return inRowBlocks(targets.length, vocabOf(scores), (start, end) =>
    blockRows(widened(scoresOf(scores, start, end)), slice(ids, 0, start, end)),
  );
}

function blockRows(logits: Tensor, ids: Tensor): Tensor {
  const own = distributionOf(logSoftmax(logits));
  const before = greater(logits, gather(logits, -1, ids)).astype(logits.dtype);
  return concat([gather(own.log, -1, ids).neg(), sum(before, last), entropyOf(own)], 1);
}

function ascending(values: Iterable<number>): Float64Array {
  return Float64Array.from(values).sort();
}

/** Of sorted values; the mean of the middle two of an even number. */
function medianOf(sorted: Float64Array): number {
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function meanOf(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i]!;
  return total / values.length;
}

/** The losses of targets among the k likeliest. The others are removed, not set to 0: what cannot be placed at all doesn't count as hard. */
function learnable({ losses, ranks }: TokenStatistics, k: number): Float64Array {
  return losses.filter((_, i) => ranks[i]! < k);
}

/**
 * The score of a sequence; higher is harder. `−∞` if nothing counts.
 *
 * @param index - of the sequence, for the random control
 */
export function hardnessOf(
  statistics: TokenStatistics,
  hardness: Hardness = { kind: "filteredMedian" },
  index = 0,
): number {
  checkHardness(hardness);
  if (hardness.kind === "random") return new Random(hardness.seed ?? 0, "hardness/random", index).uniform();
  const values = valuesOf(statistics, hardness);
  if (values.length === 0) return Number.NEGATIVE_INFINITY;
  if (hardness.kind === "filteredMedian" || hardness.kind === "median") return medianOf(ascending(values));
  const trim = hardness.kind === "filteredMean" ? (hardness.trim ?? 0) : 0;
  const cut = Math.floor(values.length * trim);
  return meanOf(ascending(values).subarray(cut, values.length - cut));
}

function valuesOf(statistics: TokenStatistics, hardness: Exclude<Hardness, { kind: "random" }>): Float64Array {
  if (hardness.kind === "entropy") return statistics.entropies;
  if (hardness.kind === "mean" || hardness.kind === "median") return statistics.losses;
  return learnable(statistics, hardness.k ?? 10);
}

function checkHardness(hardness: Hardness): void {
  const kinds = ["filteredMedian", "filteredMean", "median", "mean", "entropy", "random"];
  if (!kinds.includes(hardness?.kind)) {
    throw new OptionError(
      `[hardnessOf] kind must be one of ${kinds.join(", ")}; received ${JSON.stringify(hardness?.kind)}.`,
    );
  }
  const { k = 10, trim = 0 } = hardness as { k?: number; trim?: number };
  if (!(Number.isSafeInteger(k) && k >= 1))
    throw new OptionError(`[hardnessOf] k must be a positive integer; received ${k}.`);
  if (!(trim >= 0 && trim < 0.5)) throw new OptionError(`[hardnessOf] trim must be in [0, 0.5); received ${trim}.`);
}

export interface ScoreOptions {
  hardness?: Hardness;
  /** Score how much harder the sequence is for the scorer than for this model, such as for an early checkpoint than for the final one; −∞ if nothing counts for either. */
  minus?: Teacher;
  signal?: AbortSignal;
}

/**
 * Scores of all sequences of some batches, in their order.
 *
 * @example
 * const scores = await scoreSequences({ model: tokenModel(small), params: early }, windowsAt(tokens, starts, { seqLen, batchSize }));
 * const chosen = selectTop(scores, 36_000 * batchSize).map((i) => starts[i]!);
 */
export async function scoreSequences(
  scorer: Teacher,
  batches: Iterable<Batch> | AsyncIterable<Batch>,
  options: ScoreOptions = {},
): Promise<Float64Array> {
  const { hardness = { kind: "filteredMedian" }, minus, signal } = options;
  checkHardness(hardness);
  const scores: number[] = [];
  for await (const batch of batches) {
    signal?.throwIfAborted();
    const first = scores.length;
    const own = await statisticsBy(scorer, batch);
    const other = minus && (await statisticsBy(minus, batch));
    for (const [i, statistics] of own.entries()) {
      const score = hardnessOf(statistics, hardness, first + i);
      scores.push(other ? difference(score, hardnessOf(other[i]!, hardness, first + i)) : score);
    }
  }
  return Float64Array.from(scores);
}

/** −∞ if either is: a sequence that nothing can be said of must not become the hardest. */
function difference(score: number, other: number): number {
  const never = Number.NEGATIVE_INFINITY;
  return score === never || other === never ? never : score - other;
}

async function statisticsBy(scorer: Teacher, batch: Batch): Promise<TokenStatistics[]> {
  const scores = noGrad(() => scope(() => scoresBy(scorer, inputsOf(batch, scorer.params))));
  try {
    return await tokenStatistics(scores, batch.targets, batch.batchSize);
  } finally {
    if ("hidden" in scores) scores.hidden.dispose();
  }
}
