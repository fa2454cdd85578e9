/** One pass of a teacher over a corpus, kept in a cache. */
import type { TokenArray } from "@llmeff/data";
import { noGrad, OptionError, scope, tensor } from "@llmeff/tensor";
import { scoresBy, type Teacher } from "./model.js";
import type { SparseTarget } from "./sparse.js";
import { sparseTargets } from "./sparse-targets.js";
import { sliceScores, type TeacherScores } from "./targets.js";
import { type CachedPredictions, type TeacherCacheOptions, TeacherCacheWriter } from "./teacher-cache.js";

/** A stream of tokens, in memory or on a disk: an array, or `TokenShards` of @llmeff/data. */
export interface TokenStream {
  readonly tokenCount: number;
  read(start: number, length: number): Int32Array | Promise<Int32Array>;
}

/** `k` above the vocabulary's size means all tokens, unless they are drawn. */
export interface LabelOptions extends Omit<TeacherCacheOptions, "tokenCount"> {
  /** Tokens that the teacher sees at a time. */
  contextLength: number;
  /** Tokens by which its window moves on: all but the first of a document's predictions have at least `contextLength − stride` tokens of context. Default half. */
  stride?: number;
  /** Windows computed together; default 8. */
  batchSize?: number;
  /** Ascending places of the documents' first tokens, the first 0; default one document. The teacher sees nothing across their borders. */
  documentStarts?: ArrayLike<number>;
  /** Of the draws, for a `sampled` cache; default 0. */
  seed?: number;
  /** Entries written so far, and all. */
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/** A window: tokens `start .. end − 1` are read, and what follows each from `from` on is predicted. */
interface Window {
  start: number;
  end: number;
  /** First token whose prediction is taken, and the end. */
  from: number;
  to: number;
  /** Of the document: its first entry is empty. */
  opens: boolean;
}

/**
 * Writes a teacher's predictions for every token of a stream.
 *
 * @throws {OptionError} for an option outside its domain, or if the teacher's scores are no numbers
 * @throws {IoError} if the file can't be written; an unfinished one is removed
 *
 * @example
 * await labelCorpus("teacher.lkd", { model: tokenModel(small), params }, tokens, { vocabSize, k: 32, contextLength: 512, tokenizerHash });
 */
export async function labelCorpus(
  path: string,
  teacher: Teacher,
  tokens: TokenArray | TokenStream,
  options: LabelOptions,
): Promise<void> {
  const stream = streamOf(tokens);
  const { contextLength, stride = Math.ceil(contextLength / 2), batchSize = 8, documentStarts = [0] } = options;
  const { seed = 0, onProgress, signal, ...cache } = options;
  for (const [name, value, most] of [
    ["contextLength", contextLength, Number.MAX_SAFE_INTEGER],
    ["stride", stride, contextLength],
    ["batchSize", batchSize, Number.MAX_SAFE_INTEGER],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < 1 || value > most) {
      throw new OptionError(`[labelCorpus] ${name} must be a positive integer of at most ${most}; received ${value}.`);
    }
  }
  const windows = windowsOf(documentEnds(documentStarts, stream.tokenCount), contextLength, stride);
  const k = cache.sampled ? cache.k : Math.min(cache.k, cache.vocabSize);
  await using writer = await TeacherCacheWriter.open(path, { ...cache, k, tokenCount: stream.tokenCount });
  const kept = { ...writer.header, seed };
  for (let pending = take(windows, batchSize); pending.length > 0; pending = take(windows, batchSize)) {
    signal?.throwIfAborted();
    const predictions = await predict(teacher, stream, pending, contextLength, kept);
    for (const [i, { opens }] of pending.entries()) {
      if (opens) await writer.skip(1);
      await writer.append(predictions[i]!);
    }
    onProgress?.(writer.count, stream.tokenCount);
  }
  await writer.finish();
}

function streamOf(tokens: TokenArray | TokenStream): TokenStream {
  if (!ArrayBuffer.isView(tokens)) return tokens;
  return {
    tokenCount: tokens.length,
    read: (start, length) => Int32Array.from(tokens.subarray(start, start + length)),
  };
}

function* documentEnds(starts: ArrayLike<number>, tokenCount: number): Generator<[start: number, end: number]> {
  for (let i = 0; i < starts.length; i++) {
    const start = starts[i]!;
    const end = starts[i + 1] ?? tokenCount;
    if (!(Number.isSafeInteger(start) && (i > 0 || start === 0) && start < end && end <= tokenCount)) {
      throw new OptionError(
        `[labelCorpus] documentStarts must begin with 0 and ascend below ${tokenCount}; received ${start} at index ${i}.`,
      );
    }
    yield [start, end];
  }
}

function* windowsOf(documents: Iterable<[number, number]>, length: number, stride: number): Generator<Window> {
  for (const [first, last] of documents) {
    let from = first + 1;
    let opens = true;
    for (let start = first; opens || from < last; start += stride) {
      const end = Math.min(start + length, last);
      // The window's last token predicts the one behind it, which must be of the document.
      const to = Math.min(end + 1, last);
      yield { start, end, from, to, opens };
      from = to;
      opens = false;
    }
  }
}

function take(windows: Iterator<Window>, count: number): Window[] {
  const taken: Window[] = [];
  while (taken.length < count) {
    const { value, done } = windows.next();
    if (done) break;
    taken.push(value);
  }
  return taken;
}

interface Kept {
  k: number;
  tail: boolean;
  sampled: boolean;
  seed: number;
}

async function predict(
  teacher: Teacher,
  stream: TokenStream,
  windows: readonly Window[],
  length: number,
  kept: Kept,
): Promise<CachedPredictions[]> {
  const ids = new Int32Array(windows.length * length);
  const read = async ({ start, end }: Window, row: number) =>
    ids.set(await stream.read(start, end - start), row * length);
  await Promise.all(windows.map(read));
  const device = Object.values(teacher.params)[0]?.device;
  const results = noGrad(() =>
    scope(() => {
      const tokens = tensor(ids, { shape: [windows.length, length], device });
      const scores = scoresBy(teacher, { tokens, targets: tokens, extras: {} });
      return windows.map((window, row) =>
        window.from === window.to ? undefined : windowPredictions(scores, window, row * length, kept),
      );
    }),
  );
  return Promise.all(results.map((result) => (result ? readAndDispose(result) : nothing(kept))));
}

/** Predictions of a document of one token. */
function nothing({ tail, sampled }: Kept): CachedPredictions {
  const empty = new Float32Array(0);
  return { ids: new Int32Array(0), ...(!sampled && { logProbs: empty }), ...(tail && { tailLogProb: empty }) };
}

type Predicted = Omit<SparseTarget, "weights">;

function windowPredictions(scores: TeacherScores, { start, from, to }: Window, row: number, kept: Kept): Predicted {
  // The token at place p is predicted by the one before it.
  const own = sliceScores(scores, row + from - 1 - start, row + to - 1 - start);
  const { k, tail, sampled, seed } = kept;
  // The draws are keyed by the window's place in the stream, so they don't depend on the batches.
  return sparseTargets(own, { k, tail, ...(sampled && { draws: { seed, stream: from } }) });
}

async function readAndDispose({ ids, logProbs, tailLogProb }: Predicted): Promise<CachedPredictions> {
  try {
    return {
      ids: (await ids.data()) as Int32Array,
      logProbs: (await logProbs?.data()) as Float32Array | undefined,
      tailLogProb: (await tailLogProb?.data()) as Float32Array | undefined,
    };
  } finally {
    for (const one of [ids, logProbs, tailLogProb]) one?.dispose();
  }
}
