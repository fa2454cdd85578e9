/** Forward passes over the new tokens of several sequences, and their scores as numbers. */
import { accumulationDType, type Device, logSumExp, reshape, scope, slice, type Tensor, tensor } from "@llmeff/tensor";
import type { KvCache } from "../cache.js";
import { lastRows } from "../cached-tokens.js";
import type { ForwardOptions } from "../forward-options.js";
import type { Parameters } from "../parameters.js";
import type { Transformer } from "../transformer.js";
import { type Chosen, DecodeStep, decodes, type Gives, type NextToken, type TokenDraws } from "./decode-step.js";
import type { GeneratedToken } from "./options.js";
import { type Targets, targetScores } from "./target-scores.js";

/** New tokens of one sequence. */
export interface NewTokens {
  ids: ArrayLike<number>;
  cache: KvCache;
  /** Of the last how many the scores are wanted. */
  scored: number;
  /** Scores of ids from here on are left out. */
  vocabSize: number;
  /** Tokens after the first of these, if they are known and to be scored. */
  targets?: Targets;
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

/** What a model says about new tokens of one sequence, and what follows them. */
export interface Scored {
  /** After each of the last tokens that were to be scored. */
  next: Scores[];
  /** The targets. */
  targets: GeneratedToken[];
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

  /** The token drawn after those of each sequence, whose cache holds them all; undefined where scores have to be read. Waits for the device. */
  chosen(parts: readonly NewTokens[], draws: readonly TokenDraws[]): Promise<Chosen[]> | undefined {
    const gives = draws.some(({ sampling }) => sampling.temperature > 0) ? "drawn" : "likeliest";
    return this.#stepFor(parts, gives, draws)?.chosen(nextTokens(parts), draws);
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
  #stepFor(parts: readonly NewTokens[], gives: Gives, draws: readonly TokenDraws[] = []): DecodeStep | undefined {
    const { vocabSize } = parts[0]!;
    const isNext = ({ ids, scored, cache, vocabSize: own }: NewTokens) =>
      ids.length === 1 && scored === 1 && cache.batchSize === 1 && cache.room > 0 && own === vocabSize;
    if (!this.#decodes || !parts.every(isNext)) return undefined;
    const next = nextTokens(parts);
    if (!this.#step?.fits(next, gives, draws)) {
      this.dispose();
      this.#step = new DecodeStep(this.model, this.params, this.#forward, next, gives, draws);
    }
    return this.#step;
  }

  /** What is to be scored of the tokens of each sequence; its cache holds them all. Waits for the device. */
  async score(parts: readonly NewTokens[]): Promise<Scored[]> {
    const vocabSizes = [...new Set(parts.map(({ vocabSize }) => vocabSize))];
    const step = this.#stepFor(parts, "scores");
    const { next, targets } =
      step === undefined
        ? scope(() => this.#pass(parts, vocabSizes))
        : { next: step.scores(nextTokens(parts)), targets: [] };
    try {
      const [values, ...totals] = (await Promise.all(next.map((x) => x.data()))) as Float32Array[];
      const V = this.model.config.vocabSize;
      let row = 0;
      const scored = parts.map(({ scored, vocabSize }): Scored => {
        const totalsOfRows = totals[vocabSizes.indexOf(vocabSize)]!;
        const rows = Array.from({ length: scored }, () => {
          const scores = values!.subarray(row * V, row * V + vocabSize);
          return { logits: scores, logSumExp: totalsOfRows[row++]! };
        });
        return { next: rows, targets: [] };
      });
      const head = (rows: Tensor) => this.model.head(this.params, rows);
      for (const { part, hidden } of targets) {
        const { targets, vocabSize } = parts[part]!;
        scored[part]!.targets = await targetScores(hidden, head, targets!, vocabSize);
      }
      return scored;
    } finally {
      for (const x of [...next, ...targets.map(({ hidden }) => hidden)]) x.dispose();
    }
  }

  /**
   * `next`: scores `[rows, V]` in float32 or wider, and their log-sum-exp over each of the vocabularies; of a pass that scores nothing what can be waited
   * for. `targets`: the rows `[T, C]` of sequences that have some.
   */
  #pass(parts: readonly NewTokens[], vocabSizes: readonly number[]): Pass {
    const ids = joined(parts);
    const tokens = tensor(ids, { shape: [1, ids.length], device: this.#device });
    const rows = parts.map(({ ids, cache, scored, prefix }) => ({
      cache,
      length: ids.length,
      scored,
      ...(prefix > 0 ? { prefix } : {}),
    }));
    const { hidden } = this.model.states(this.params, tokens, rows, this.#forward);
    const { dModel } = this.model.config;
    let end = 0;
    const targets = parts.flatMap(({ ids, targets }, part) => {
      end += ids.length;
      if (targets === undefined) return [];
      return [{ part, hidden: reshape(slice(hidden, 1, end - ids.length, end), [-1, dModel]) }];
    });
    // Of prompts that aren't through yet nothing is scored, but waited for: they must not fill the device's queue.
    if (parts.every(({ scored }) => scored === 0)) return { next: [slice(hidden, 2, 0, 1)], targets };
    const scores = this.model.head(this.params, reshape(lastRows(hidden, rows), [-1, dModel]));
    const numbers = accumulationDType(scores.dtype);
    const wide = scores.dtype === numbers ? scores : scores.astype(numbers);
    return { next: [wide, ...vocabSizes.map((n) => logSumExp(slice(wide, 1, 0, n), { axis: 1 }))], targets };
  }
}

interface Pass {
  next: Tensor[];
  /** By the number of the part. */
  targets: { part: number; hidden: Tensor }[];
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
