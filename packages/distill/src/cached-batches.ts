/** Batches with a teacher's cached predictions for their targets. */
import { type Batch, type BatchArray, type BatchSource, IGNORE_INDEX, type JsonObject } from "@llmeff/data";
import { FormatError, OptionError } from "@llmeff/tensor";
import { cacheExtras } from "./distill.js";
import type { CachedPredictions, TeacherCache } from "./teacher-cache.js";

export interface CachedBatchesOptions {
  /** Places of the documents' first tokens in the stream, as `labelCorpus` had them: they are no targets, so rows lose them. Default the stream's first alone. */
  documentStarts?: Iterable<number>;
}

/**
 * A source whose batches also have the predictions of a cache, as `extras` for `distill({ cache: true })`. The source's rows must say where in the stream
 * they stand, as those of `TokenDataset`, `ShardWindows` and `SelectedWindows` do.
 *
 * @throws {OptionError} from `next`, for rows without places and for targets that the cache has no prediction for
 *
 * @example
 * const data = withTeacherCache(new TokenDataset(tokens, { seqLen, batchSize }), cache);
 */
export function withTeacherCache(
  source: BatchSource,
  cache: TeacherCache,
  options: CachedBatchesOptions = {},
): BatchSource {
  const first = new Set(options.documentStarts);
  const { k, tokenCount, tokenizerHash } = cache.header;
  const identity: JsonObject = { kind: "teacher-cache", k, tokenCount, tokenizerHash };
  return {
    async next() {
      return withPredictions(await source.next(), cache, first);
    },
    state: () => ({ ...identity, source: source.state() }),
    restore(state) {
      for (const [name, value] of Object.entries(identity)) {
        if (state?.[name] === value) continue;
        throw new FormatError(
          `[withTeacherCache] the state has ${name} ${JSON.stringify(state?.[name])} but this cache has ${JSON.stringify(value)}. Resume with the cache that the state was made with.`,
        );
      }
      source.restore(state.source as JsonObject);
    },
  };
}

async function withPredictions(batch: Batch, cache: TeacherCache, first: ReadonlySet<number>): Promise<Batch> {
  const { origins, seqLen } = batch;
  if (origins === undefined) {
    throw new OptionError(
      "[withTeacherCache] expected batches with origins, the places of their rows in the stream; received none. Use TokenDataset, ShardWindows or SelectedWindows.",
    );
  }
  const rows = await Promise.all(Array.from(origins, (origin) => cache.read(origin + 1, seqLen)));
  const isFirst = (at: number) => first.has(origins[Math.floor(at / seqLen)]! + 1 + (at % seqLen));
  const targets = batch.targets.map((id, at) => (isFirst(at) ? IGNORE_INDEX : id));
  for (const [at, id] of targets.entries()) {
    const row = Math.floor(at / seqLen);
    if (id === IGNORE_INDEX || !isEmpty(rows[row]!, at % seqLen, cache.header.k)) continue;
    throw new OptionError(
      `[withTeacherCache] token ${origins[row]! + 1 + (at % seqLen)} begins a document in the cache, which has no prediction for it. Give documentStarts, as to labelCorpus.`,
    );
  }
  return { ...batch, targets, extras: { ...batch.extras, ...extrasOf(rows, batch, cache.header.k) } };
}

/** Whether an entry is all zeros, which no prediction is: token 0 twice, or certain beside a tail that is certain too. Draws, and one token without a tail, don't tell. */
function isEmpty({ ids, logProbs, tailLogProb }: CachedPredictions, entry: number, k: number): boolean {
  const certain = logProbs?.[entry * k] === 0 && ids[entry * k] === 0;
  return certain && (k > 1 ? ids[entry * k + 1] === 0 : tailLogProb?.[entry] === 0);
}

function extrasOf(
  rows: readonly CachedPredictions[],
  { batchSize, seqLen }: Batch,
  k: number,
): Record<string, BatchArray> {
  const shape = [batchSize, seqLen, k];
  const joined = (name: "logProbs" | "tailLogProb") => {
    const width = rows[0]?.[name]?.length;
    if (width === undefined) return undefined;
    const whole = new Float32Array(rows.length * width);
    for (const [b, row] of rows.entries()) whole.set(row[name]!, b * width);
    return whole;
  };
  const ids = new Int32Array(batchSize * seqLen * k);
  for (const [b, row] of rows.entries()) ids.set(row.ids, b * seqLen * k);
  const [logProbs, tailLogProb] = [joined("logProbs"), joined("tailLogProb")];
  return {
    [cacheExtras.ids]: { data: ids, shape },
    ...(logProbs && { [cacheExtras.logProbs]: { data: logProbs, shape } }),
    ...(tailLogProb && { [cacheExtras.tailLogProb]: { data: tailLogProb, shape: [batchSize, seqLen] } }),
  };
}
