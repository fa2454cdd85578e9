/** Forward passes over the new tokens of several sequences, and their scores as numbers. */
import { accumulationDType, type Device, logSumExp, scope, slice, type Tensor, tensor } from "@llmeff/tensor";
import type { KvCache } from "../cache.js";
import type { ForwardOptions } from "../forward-options.js";
import type { Parameters } from "../parameters.js";
import type { Transformer } from "../transformer.js";
import { DecodeStep, decodes, type Likeliest, type NextToken } from "./decode-step.js";

/** New tokens of one sequence. */
export interface NewTokens {
  ids: ArrayLike<number>;
  cache: KvCache;
  /** Of the last how many the scores are wanted. */
  scored: number;
  /** Scores of ids from here on are left out. */
  vocabSize: number;
  /** Leading positions of the sequence that see each other. */
  prefix: number;
  /** Tokens that may still be drawn. */
  left: number;
}

/** What a model says about the next token of one sequence. */
export interface Scores {
  /** `[vocabSize]` */
  logits: Float32Array | Float64Array;
  /** Of these logits. */
  logSumExp: number;
}

/** Logits as numbers: `data` gives those of half-precision models as bits. */
export async function readLogits(logits: Tensor): Promise<Float32Array | Float64Array> {
  using wide = logits.astype(accumulationDType(logits.dtype));
  return (await wide.data()) as Float32Array | Float64Array;
}

export interface ScorerOptions extends Pick<ForwardOptions, "state"> {
  /** Whether steps of one token for each sequence are captured where they can be; default true. */
  captureStep?: boolean | undefined;
}

export class Scorer {
  readonly #device: Device | undefined;
  readonly #forward: ForwardOptions;
  readonly #decodes: boolean;
  #step: DecodeStep | undefined;

  constructor(
    readonly model: Transformer,
    private readonly params: Parameters,
    { state, captureStep = true }: ScorerOptions = {},
  ) {
    this.#device = Object.values(params)[0]?.device;
    this.#forward = state === undefined ? {} : { state };
    this.#decodes = captureStep && decodes(model, params);
  }

  /** The likeliest token after those of each sequence, whose cache holds them all; undefined where scores have to be read. Waits for the device. */
  likeliest(parts: readonly NewTokens[]): Promise<Likeliest[]> | undefined {
    return this.#stepFor(parts, true)?.likeliest(nextTokens(parts));
  }

  /** Gives up what was captured about a sequence, before its cache goes. */
  forget(cache: KvCache): void {
    if (this.#step?.involves(cache)) this.dispose();
  }

  dispose(): void {
    this.#step?.dispose();
    this.#step = undefined;
  }

  /** The step for these tokens, if they are the next ones of sequences that have begun. */
  #stepFor(parts: readonly NewTokens[], likeliest: boolean): DecodeStep | undefined {
    const { vocabSize } = parts[0]!;
    const isNext = ({ ids, scored, cache, vocabSize: own }: NewTokens) =>
      ids.length === 1 && scored === 1 && cache.batchSize === 1 && cache.room > 0 && own === vocabSize;
    if (!this.#decodes || !parts.every(isNext)) return undefined;
    const next = nextTokens(parts);
    if (!this.#step?.fits(next, likeliest)) {
      this.dispose();
      this.#step = new DecodeStep(this.model, this.params, this.#forward, next, likeliest);
    }
    return this.#step;
  }

  /** The scores after the tokens of each sequence that are to be scored; its cache holds them all. Waits for the device. */
  async score(parts: readonly NewTokens[]): Promise<Scores[][]> {
    const vocabSizes = [...new Set(parts.map(({ vocabSize }) => vocabSize))];
    const step = this.#stepFor(parts, false);
    const [logits, ...sums] = step?.scores(nextTokens(parts)) ?? scope(() => this.#pass(parts, vocabSizes));
    try {
      const [values, ...totals] = (await Promise.all([logits, ...sums].map((x) => x.data()))) as Float32Array[];
      const V = this.model.config.vocabSize;
      let row = 0;
      return parts.map(({ scored, vocabSize }) => {
        const totalsOfRows = totals[vocabSizes.indexOf(vocabSize)]!;
        return Array.from({ length: scored }, () => {
          const scores = values!.subarray(row * V, row * V + vocabSize);
          return { logits: scores, logSumExp: totalsOfRows[row++]! };
        });
      });
    } finally {
      for (const x of [logits, ...sums]) x.dispose();
    }
  }

  /** Scores `[rows, V]` in float32 or wider, and their log-sum-exp over each of the vocabularies. */
  #pass(parts: readonly NewTokens[], vocabSizes: readonly number[]): [Tensor, ...Tensor[]] {
    const ids = joined(parts);
    const tokens = tensor(ids, { shape: [1, ids.length], device: this.#device });
    const rows = parts.map(({ ids, cache, scored, prefix }) => ({
      cache,
      length: ids.length,
      scored,
      ...(prefix > 0 ? { prefix } : {}),
    }));
    // Of prompts that aren't through yet nothing is scored, but waited for: they must not fill the device's queue.
    if (parts.every(({ scored }) => scored === 0)) {
      return [slice(this.model.hidden(this.params, tokens, rows, this.#forward), 2, 0, 1)];
    }
    const scores = this.model.lastLogits(this.params, tokens, rows, this.#forward);
    const numbers = accumulationDType(scores.dtype);
    const wide = scores.dtype === numbers ? scores : scores.astype(numbers);
    return [wide, ...vocabSizes.map((n) => logSumExp(slice(wide, 1, 0, n), { axis: 1 }))];
  }
}

const nextTokens = (parts: readonly NewTokens[]): NextToken[] =>
  parts.map(({ ids, cache, vocabSize, left }) => ({ id: ids[0]!, cache, vocabSize, left }));

/** The tokens of all parts, one after the other. */
function joined(parts: readonly NewTokens[]): Int32Array {
  const all = new Int32Array(parts.reduce((sum, { ids }) => sum + ids.length, 0));
  let at = 0;
  for (const { ids } of parts) {
    all.set(ids, at);
    at += ids.length;
  }
  return all;
}
