/**
 * Batches that a model writes itself: on-policy distillation (GKD, arXiv:2306.13649) with the student as the writer, sequence-level distillation with the
 * teacher (distillation.md §5).
 */
import { type Batch, type BatchSource, IGNORE_INDEX, type JsonObject, Random, type Seed } from "@llmeff/data";
import { drawToken, KvCache, readLogits, resolveSampling, type Transformer, tokenProbabilities } from "@llmeff/models";
import { FormatError, OptionError, tensor } from "@llmeff/tensor";
import type { Parameters } from "./model.js";

export interface ContinuationOptions {
  /** Tokens to write. */
  length: number;
  /** Default 1, of which alone the draws are those of the model's own distribution. */
  temperature?: number;
  /** Nothing is drawn after one of these. */
  stopTokens?: readonly number[];
  seed?: Seed;
  /** Another one draws other numbers; default 0. */
  index?: number;
}

/**
 * Continuations of prompts of one length, all written together.
 *
 * @param prompts - `[B, P]`, row-major
 * @returns `[B, length]`; −1 behind a stop token
 */
export async function writeContinuations(
  model: Transformer,
  params: Parameters,
  prompts: Int32Array,
  batchSize: number,
  options: ContinuationOptions,
): Promise<Int32Array> {
  const { length, temperature = 1, stopTokens = [], seed = 0, index = 0 } = options;
  const sampling = resolveSampling({ temperature });
  const random = new Random(seed, "on-policy/draw", index);
  const device = Object.values(params)[0]?.device;
  const written = new Int32Array(batchSize * length).fill(-1);
  const stopped = new Array<boolean>(batchSize).fill(false);
  using cache = new KvCache(model.config, { expected: prompts.length / batchSize + length });
  let next = prompts;
  for (let t = 0; t < length && stopped.includes(false); t++) {
    using tokens = tensor(next, { shape: [batchSize, next.length / batchSize], device });
    using logits = model.lastLogits(params, tokens, cache);
    const scores = await readLogits(logits);
    const vocabSize = scores.length / batchSize;
    next = Int32Array.from({ length: batchSize }, (_, b) => {
      const row = scores.subarray(b * vocabSize, (b + 1) * vocabSize);
      // Every row draws in every step, so that what one writes doesn't depend on where another stops.
      return drawToken(tokenProbabilities(row, sampling), random.uniform());
    });
    for (const [b, id] of next.entries()) {
      if (stopped[b]) continue;
      written[b * length + t] = id;
      stopped[b] = stopTokens.includes(id);
    }
  }
  return written;
}

export interface WrittenBatchesOptions extends Pick<ContinuationOptions, "temperature" | "stopTokens" | "seed"> {
  /** Who writes: the student for on-policy distillation, the teacher for sequence-level. */
  model: Transformer;
  params: Parameters;
  /** λ: the part of the batches that are written, each by chance; 0 none, 1 all. */
  share: number;
  /** First tokens of each row that are kept as the prompt. */
  promptLength: number;
}

/** A source with some batches written by a model. */
export interface WrittenBatches extends BatchSource {
  /** Part of the batches so far that were written. */
  readonly writtenFraction: number;
  /** Tokens written a row, on average. */
  readonly meanLength: number;
}

/**
 * A source of which some batches keep their prompts only and are continued by a model; only what it wrote is a target. Which ones, and what is drawn, depends on
 * (seed, number of the batch) and the model's parameters at that time. So no `prefetch` around it: it would write with parameters of some steps before.
 *
 * On-policy: the objective is `distill` with `omega: 1`, any divergence from the teacher on what the student wrote; no gradient goes through the draws. Sequence-level: the writer is
 * the teacher, the objective plain cross-entropy, and tokenizers need not agree beyond the corpus that was written.
 */
export function writtenBatches(source: BatchSource, options: WrittenBatchesOptions): WrittenBatches {
  const { share, promptLength, seed = 0, temperature = 1, stopTokens = [] } = options;
  if (!(share >= 0 && share <= 1))
    throw new OptionError(`[writtenBatches] share must be in [0, 1]; received ${share}.`);
  if (!Number.isSafeInteger(promptLength) || promptLength < 1) {
    throw new OptionError(`[writtenBatches] promptLength must be a positive integer; received ${promptLength}.`);
  }
  const identity: JsonObject = {
    ...{ kind: "written-batches", share, promptLength, seed: String(seed), temperature },
    stopTokens: stopTokens.join(),
  };
  const counts = { batches: 0, written: 0, rows: 0, tokens: 0 };
  return {
    get writtenFraction() {
      return counts.batches === 0 ? 0 : counts.written / counts.batches;
    },
    get meanLength() {
      return counts.rows === 0 ? 0 : counts.tokens / counts.rows;
    },
    async next() {
      const batch = await source.next();
      const index = counts.batches;
      const chosen = new Random(seed, "on-policy/choose", index).uniform() < share;
      const own = chosen ? await continued(batch, options, index) : batch;
      counts.batches += 1;
      if (chosen) {
        counts.written += 1;
        counts.rows += own.batchSize;
        counts.tokens += own.targets.filter((id) => id !== IGNORE_INDEX).length;
      }
      return own;
    },
    state: () => ({ ...identity, ...counts, source: source.state() }),
    restore(state) {
      const restored = countsOf(state, identity, Object.keys(counts));
      source.restore(state.source as JsonObject);
      Object.assign(counts, restored);
    },
  };
}

function countsOf(state: JsonObject, identity: JsonObject, names: readonly string[]): Record<string, number> {
  for (const [name, value] of Object.entries(identity)) {
    if (state?.[name] === value) continue;
    throw new FormatError(
      `[writtenBatches] the state has ${name} ${JSON.stringify(state?.[name])} but this source has ${JSON.stringify(value)}. Resume with the options that the state was made with.`,
    );
  }
  const wrong = names.find((name) => !(Number.isSafeInteger(state[name]) && (state[name] as number) >= 0));
  if (wrong === undefined) return Object.fromEntries(names.map((name) => [name, state[name] as number]));
  throw new FormatError(
    `[writtenBatches] the state's ${wrong} must be an integer of at least 0; received ${JSON.stringify(state[wrong])}. The state is damaged.`,
  );
}

async function continued(batch: Batch, options: WrittenBatchesOptions, index: number): Promise<Batch> {
  const { model, params, promptLength } = options;
  const { tokens, batchSize, seqLen } = batch;
  if (promptLength > seqLen) {
    throw new OptionError(`[writtenBatches] promptLength is ${promptLength}; the rows have ${seqLen} tokens.`);
  }
  const prompts = new Int32Array(batchSize * promptLength);
  for (let b = 0; b < batchSize; b++)
    prompts.set(tokens.subarray(b * seqLen, b * seqLen + promptLength), b * promptLength);
  const length = seqLen + 1 - promptLength;
  const written = await writeContinuations(model, params, prompts, batchSize, { ...options, length, index });
  const own = new Int32Array(batchSize * seqLen);
  const targets = new Int32Array(batchSize * seqLen).fill(IGNORE_INDEX);
  for (let b = 0; b < batchSize; b++) {
    const row = written.subarray(b * length, (b + 1) * length);
    own.set(prompts.subarray(b * promptLength, (b + 1) * promptLength), b * seqLen);
    own.set(
      row.subarray(0, length - 1).map((id) => Math.max(0, id)),
      b * seqLen + promptLength,
    );
    targets.set(
      row.map((id) => (id < 0 ? IGNORE_INDEX : id)),
      b * seqLen + promptLength - 1,
    );
  }
  return { tokens: own, targets, batchSize, seqLen };
}
