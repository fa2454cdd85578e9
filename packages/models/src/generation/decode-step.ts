/** Steps of one token for each of the same sequences, captured after the first few: from there on a step is one replay. */
import {
  accumulationDType,
  add,
  type CapturedStep,
  captureStep,
  copyInto,
  type InputForm,
  keep,
  likeliestInto,
  logSumExp,
  sampleTokensInto,
  scope,
  slice,
  type Tensor,
  tensor,
  unsqueeze,
} from "@llmeff/tensor";
import type { KvCache } from "../cache.js";
import { takesNextTokens } from "../cached-tokens.js";
import type { ForwardOptions } from "../forward-options.js";
import type { Parameters } from "../parameters.js";
import type { Transformer } from "../transformer.js";
import type { ResolvedSampling } from "./sampling.js";

/** Steps as they are before one is captured: a batch whose sequences soon change would capture for nothing. */
const settled = 4;
/** Steps that the device has ahead of the token that is read, so that it needn't wait for the host. */
export const ahead = 2;

/** A next token. */
export interface NextToken {
  id: number;
  cache: KvCache;
  /** Ids from here on aren't scored. */
  vocabSize: number;
  /** Tokens that may still be drawn, the next one included. */
  left: number;
}

/** By what the tokens of a sequence are drawn. */
export interface TokenDraws {
  sampling: ResolvedSampling;
  /** The number in [0, 1) of the token so many after the next one; known of as many as the device may have {@link ahead}. */
  at(after: number): number;
}

/** The token that the device has drawn after the next one. */
export interface Chosen {
  id: number;
  logit: number;
  logSumExp: number;
  /** The largest of the scores. */
  largest: number;
}

/** What a step gives: the tokens, with which the device then goes on by itself, or all scores. */
export type Gives = "likeliest" | "drawn" | "scores";

/** Whether steps of these parameters can be captured. */
export function decodes({ config }: Transformer, params: Parameters): boolean {
  const [first] = Object.values(params);
  // The CPU computes in float32, and would make all of a narrower memory wide at each step.
  const widens = first?.device === "cpu" && accumulationDType(first.dtype) !== first.dtype;
  return first !== undefined && !widens && takesNextTokens(config);
}

/** The memory of each layer's keys: a captured step works on this one, and no longer fits when rows have moved to another. */
const memoriesOf = (caches: readonly KvCache[]) =>
  caches.flatMap(({ layers }) => layers.map(({ k }) => k.memory?.buffer));

interface Queued {
  result: Tensor;
  read: Promise<Chosen[]>;
}

/** The next token of each of the same sequences, over and over. */
export class DecodeStep {
  /** int32 `[N]` */
  readonly #tokens: Tensor;
  /** int32 `[N]` */
  readonly #positions: Tensor;
  readonly #caches: readonly KvCache[];
  readonly #vocabSize: number;
  readonly #memories: readonly (Tensor | undefined)[];
  readonly #samplings: readonly ResolvedSampling[];
  /** float64 `[N, 4]` of `sampleTokensInto`, where tokens are drawn. */
  readonly #filters: Tensor | undefined;
  readonly #step: CapturedStep<string, Tensor[]>;
  readonly #queued: Queued[] = [];
  /** Steps so far. */
  #taken = 0;
  /** Tokens and positions of the first of the queued steps, or of the next one that will be queued. */
  #at: readonly { id: number; length: number }[] = [];

  constructor(
    private readonly model: Transformer,
    private readonly params: Parameters,
    private readonly forward: ForwardOptions,
    parts: readonly NextToken[],
    private readonly gives: Gives,
    draws: readonly TokenDraws[],
  ) {
    const { device } = Object.values(params)[0]!;
    const N = parts.length;
    this.#caches = parts.map(({ cache }) => cache);
    this.#vocabSize = parts[0]!.vocabSize;
    this.#memories = memoriesOf(this.#caches);
    this.#samplings = draws.map(({ sampling }) => sampling);
    this.#tokens = keep(tensor(new Int32Array(N), { device }));
    this.#positions = keep(tensor(new Int32Array(N), { device }));
    const inputs: Record<string, InputForm> = gives === "drawn" ? { u: { shape: [N], dtype: "float64" } } : {};
    if (gives === "drawn") this.#filters = keep(tensor(filtersOf(draws), { shape: [N, 4], device }));
    this.#step = captureStep<string, Tensor[]>(({ u }) => this.#pass(u), { inputs, warmup: settled, device });
  }

  /** Whether it is about these sequences in this order, drawn as they were, and their rows are where they were. */
  fits(parts: readonly NextToken[], gives: Gives, draws: readonly TokenDraws[]): boolean {
    const same = parts.length === this.#caches.length && parts.every(({ cache }, i) => cache === this.#caches[i]);
    if (!same || gives !== this.gives || parts[0]!.vocabSize !== this.#vocabSize) return false;
    // Filters are part of the step, and the queued ones have drawn by them.
    if (!draws.every(({ sampling }, i) => sampling === this.#samplings[i])) return false;
    return memoriesOf(this.#caches).every((memory, i) => memory === this.#memories[i]);
  }

  involves(cache: KvCache): boolean {
    return this.#caches.includes(cache);
  }

  /** Scores after the tokens, `[N, V]` in float32 or wider, and their log-sum-exps `[N]`. */
  scores(parts: readonly NextToken[]): [scores: Tensor, logSumExps: Tensor] {
    this.#place(parts);
    const results = this.#replay({});
    for (const cache of this.#caches) cache.count(1);
    return results as [Tensor, Tensor];
  }

  /** The tokens that the device takes after these. Waits for it, while it goes on with those. */
  async chosen(parts: readonly NextToken[], draws: readonly TokenDraws[]): Promise<Chosen[]> {
    const known = this.#at.length > 0 && parts.every(({ id, cache }, i) => this.#isAt(i, id, cache.length));
    if (!known) {
      this.#drop();
      this.#place(parts);
    }
    const most = parts.reduce((least, { left, cache }) => Math.min(least, left, cache.room), 1 + ahead);
    const wanted = this.#step.mode === "captured" ? most : 1;
    while (this.#queued.length < wanted) this.#queue(draws);
    const { read } = this.#queued.shift()!;
    // Before waiting: who leaves meanwhile takes his cache along.
    for (const cache of this.#caches) cache.count(1);
    const lengths = this.#caches.map(({ length }) => length);
    const found = await read;
    this.#at = found.map(({ id }, i) => ({ id, length: lengths[i]! }));
    return found;
  }

  #isAt(i: number, id: number, length: number): boolean {
    const at = this.#at[i]!;
    return at.id === id && at.length === length;
  }

  /** Tells the device the tokens and their positions. */
  #place(parts: readonly NextToken[]): void {
    const int32 = (values: readonly number[], like: Tensor) =>
      tensor(Int32Array.from(values), { shape: like.shape, device: like.device });
    scope(() => {
      copyInto(
        this.#tokens,
        int32(
          parts.map(({ id }) => id),
          this.#tokens,
        ),
      );
      copyInto(
        this.#positions,
        int32(
          parts.map(({ cache }) => cache.length),
          this.#positions,
        ),
      );
    });
    this.#at = parts.map(({ id, cache }) => ({ id, length: cache.length }));
  }

  #queue(draws: readonly TokenDraws[]): void {
    const after = this.#queued.length;
    const inputs = this.gives === "drawn" ? { u: Float64Array.from(draws, (each) => each.at(after)) } : {};
    const [result] = this.#replay(inputs) as [Tensor];
    const read = readChosen(result, this.#caches.length);
    read.catch(() => undefined); // of a step that nobody waits for
    this.#queued.push({ result, read });
  }

  #replay(inputs: Readonly<Record<string, Float64Array>>): Tensor[] {
    const captures = this.#taken++ === settled;
    try {
      return this.#step(inputs);
    } catch (error) {
      // A model that can't be captured, or no memory for what a captured step holds: nothing has happened, and the step runs as it is from here on.
      if (captures && this.#step.mode === "eager") return this.#step(inputs);
      throw error;
    }
  }

  #pass(u: Tensor | undefined): Tensor[] {
    const next = { caches: this.#caches, positions: this.#positions };
    const scores = this.model.lastLogits(this.params, unsqueeze(this.#tokens, 0), next, this.forward);
    if (this.gives !== "scores") {
      copyInto(this.#positions, add(this.#positions, 1));
      const known = slice(scores, 1, 0, this.#vocabSize);
      if (this.gives === "likeliest") return [likeliestInto(this.#tokens, known)];
      return [sampleTokensInto(this.#tokens, known, this.#filters!, u!)];
    }
    const numbers = accumulationDType(scores.dtype);
    const wide = scores.dtype === numbers ? scores : scores.astype(numbers);
    return [wide, logSumExp(slice(wide, 1, 0, this.#vocabSize), { axis: 1 })];
  }

  #drop(): void {
    for (const { result } of this.#queued.splice(0)) result.dispose();
  }

  dispose(): void {
    this.#drop();
    this.#step.dispose();
    this.#tokens.dispose();
    this.#positions.dispose();
    this.#filters?.dispose();
  }
}

/** Temperature, k (0 for all), p and minP of each sequence. */
function filtersOf(draws: readonly TokenDraws[]): Float64Array {
  return Float64Array.from(
    draws.flatMap(({ sampling: { temperature, topK = 0, topP, minP } }) => [temperature, topK, topP, minP]),
  );
}

async function readChosen(result: Tensor, N: number): Promise<Chosen[]> {
  try {
    const values = (await result.data()) as Float32Array | Float64Array;
    // The likeliest tokens have the largest scores, which aren't given twice.
    const largest = values.length > 3 * N ? 3 * N : N;
    return Array.from({ length: N }, (_, i) => ({
      id: values[i]!,
      logit: values[N + i]!,
      logSumExp: values[2 * N + i]!,
      largest: values[largest + i]!,
    }));
  } finally {
    result.dispose();
  }
}
