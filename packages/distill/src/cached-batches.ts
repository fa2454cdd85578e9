/** Batches with a teacher's cached predictions for their targets. */
import { type Batch, type BatchArray, type BatchSource, IGNORE_INDEX, type JsonObject } from "@llmeff/data";
import { FormatError, OptionError } from "@llmeff/tensor";
import { cacheExtras } from "./distill.js";
import type { CachedPredictions, TeacherCache } from "./teacher-cache.js";

export interface CachedBatchesOptions {
  /** Places of the documents' first tokens in the stream, which are no targets: their rows lose them. Default the stream's first alone. */
  documentStarts?: Iterable<number>;
}

/**
 * A source whose batches also have the predictions of a cache, as `extras` for `distill({ cache: true })`. The source's rows must say where in the stream
 * they stand, as those of `TokenDataset`, `ShardWindows` and `SelectedWindows` do.
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
  return { ...batch, targets, extras: { ...batch.extras, ...extrasOf(rows, batch, cache.header.k) } };
}

function extrasOf(
  rows: readonly CachedPredictions[],
  { batchSize, seqLen }: Batch,
  k: number,
): Record<string, BatchArray> {
  const shape = [batchSize, seqLen, k];
  const joined = (name: "logProbs" | "tailLogProb") => {
    if (rows[0]?.[name] === undefined) return undefined;
    return Float32Array.from(rows.flatMap((row) => [...row[name]!]));
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
