import {
  add,
  type CrossEntropyParts,
  embedding,
  full,
  keep,
  linear,
  linearCrossEntropy,
  linearCrossEntropyParts,
  mul,
  reshape,
  ShapeError,
  scope,
  slice,
  type Tensor,
  tanh,
  tensor,
  unsqueeze,
  where,
  zeros,
} from "@llmeff/tensor";
import { type TrainingFlops, trainingFlopsPerToken } from "./accounting.js";
import type { KvCache } from "./cache.js";
import {
  type CacheSpan,
  checkCachedTokens,
  checkNextTokens,
  isNext,
  isSeveral,
  lastRows,
  type NextTokens,
  type Remembered,
  spansOf,
} from "./cached-tokens.js";
import { expertsOf, type ResolvedConfig, resolveConfig, type TransformerConfig, widthRatio } from "./config.js";
import { checkForward, type ForeignEmbeds, type ForwardOptions } from "./forward-options.js";
import { type BlockContext, block } from "./layers/block.js";
import type { RouterReport } from "./layers/experts.js";
import { type Lookup, parametersAt } from "./layers/lookup.js";
import { type Stream, streamNormed } from "./layers/norm.js";
import { recomputeChoice, recomputed } from "./layers/recompute.js";
import { type PositionRange, RotaryTables } from "./layers/rotary.js";
import { nextRouterBias } from "./moe/balance.js";
import {
  countActiveParameters,
  countParameters,
  type InitOptions,
  initParameters,
  layerPrefix,
  learningRateScales,
  type Parameters,
} from "./parameters.js";

/** Token ids and what each position must predict, with the masks of the row; -100 marks positions without a target. */
export interface TokenBatch
  extends Pick<ForwardOptions, "documents" | "prefix" | "causal" | "positions" | "inputEmbeds"> {
  /** `[B, T]` int32 */
  tokens: Tensor;
  /** `[B, T]` int32; positions with foreign vectors have no loss, whatever stands there */
  targets: Tensor;
}

export interface LossOptions extends Pick<ForwardOptions, "state" | "jitterKey" | "recompute"> {
  /** Weight of the uniform distribution in the target; default 0. */
  labelSmoothing?: number;
  /** Coefficient of the mean squared log-sum-exp of the logits (PaLM: 1e-4); default 0. */
  zLoss?: number;
}

/** The last block's output and what the routers of the blocks did, by the prefix of their layer (`model.layers.0`). */
export interface HiddenStates {
  /** `[B, T, dModel]`, normed */
  hidden: Tensor;
  routers: Record<string, RouterReport>;
  /** The residual stream `[B, T, dModel]` after each of `ForwardOptions.blocks`, by the block's number; not normed, unless the blocks are `post`. */
  blocks: Readonly<Record<number, Tensor>>;
}

/** The loss of a batch with its parts. */
export interface TransformerLossParts extends CrossEntropyParts {
  routers: Record<string, RouterReport>;
}

/**
 * A decoder-only Transformer as functions of its parameters (which it does not hold): residual blocks of grouped-query attention, by layer
 * dot-product or 2-simplicial, and of feed-forward layers or mixtures of experts.
 *
 * @example
 * const model = new Transformer({ vocabSize: 65, dModel: 64, numLayers: 2, numHeads: 4, maxSeqLen: 128 });
 * const params = model.init(0);
 * const { value, grads } = valueAndGrad((p) => model.loss(p, batch), params);
 */
export class Transformer {
  readonly config: ResolvedConfig;
  readonly #rotary: RotaryTables;

  /** @throws {OptionError} naming the field of the configuration that doesn't fit */
  constructor(config: TransformerConfig) {
    this.config = resolveConfig(config);
    this.#rotary = new RotaryTables(this.config);
  }

  /** Fresh parameters; the same seed gives the same values on every device, up to the rounding of their normal distribution. */
  init(seed: number, options?: InitOptions): Parameters {
    return initParameters(this.config, seed, options);
  }

  /**
   * State that isn't learnt by gradients: the biases of the routers' choices, zeros, where the configuration asks for them. Belongs into
   * checkpoints, and into every forward pass as `state` or among the parameters.
   */
  initState({ device }: Pick<InitOptions, "device"> = {}): Record<string, Tensor> {
    const bias = () => keep(zeros([this.config.experts!.numExperts], { device }));
    return Object.fromEntries(stateNames(this.config).map((name) => [name, bias()]));
  }

  /** The state after a step whose routers reported these loads (`lossParts`); see `nextRouterBias`. */
  nextState(
    state: Record<string, Tensor>,
    routers: Record<string, Pick<RouterReport, "load">>,
    rate?: number,
  ): Record<string, Tensor> {
    return Object.fromEntries(
      Object.entries(routers).map(([layer, { load }]) => {
        const name = routerBiasName(layer);
        return [name, scope(() => nextRouterBias(state[name]!, load, rate))];
      }),
    );
  }

  /** Number of values in all parameters. */
  get parameterCount(): number {
    return countParameters(this.config);
  }

  /** Number of values that a token meets: of the experts `topK` instead of all. */
  get activeParameterCount(): number {
    return countActiveParameters(this.config);
  }

  /** What each parameter's learning rate is multiplied by; 1 without muP. */
  learningRateScales(): Record<string, number> {
    return learningRateScales(this.config);
  }

  /** Operations of a training step per token of sequences of `seqLen`; see `trainingFlopsPerToken`. */
  flopsPerToken(seqLen: number): TrainingFlops {
    return trainingFlopsPerToken(this.config, seqLen);
  }

  /**
   * Output of the last block, normed.
   *
   * @param tokens - `[B, T]` int32; `[1, T]` of several sequences one after another, where `cache` has one for each
   * @param cache - positions before `tokens`; theirs are added to it. Of sequences whose lengths differ, their caches in the order of their tokens:
   * each attends to its own, the products with weights are those of all. Of the next tokens at positions of a tensor the caches count nothing
   * @returns `[B, T, dModel]`
   * @throws {OptionError} {@link ShapeError} for options that don't fit the model, the tokens or each other
   */
  hidden(params: Parameters, tokens: Tensor, cache?: Remembered, options?: ForwardOptions): Tensor {
    return scope(() => this.states(params, tokens, cache, options).hidden);
  }

  /** `hidden`, with what the routers of mixtures of experts did. */
  states(params: Parameters, tokens: Tensor, cache?: Remembered, options: ForwardOptions = {}): HiddenStates {
    return this.#statesOf(params, tokens, cache, options, (all) => all);
  }

  /** `states`, but `hidden` is of the chosen positions alone. */
  #statesOf(
    params: Parameters,
    tokens: Tensor,
    cache: Remembered | undefined,
    options: ForwardOptions,
    chosen: (all: Tensor) => Tensor,
  ): HiddenStates {
    if (tokens.rank !== 2)
      throw new ShapeError(`[Transformer] tokens must be [B, T]; received [${tokens.shape.join(", ")}].`);
    const [, T] = tokens.shape as [number, number];
    const next = isNext(cache) ? cache : undefined;
    const several = isSeveral(cache);
    if (next !== undefined) checkNextTokens(this.config, next, tokens);
    if (several) checkCachedTokens(cache, tokens);
    const spans = several ? spansOf(cache) : isNext(cache) ? undefined : cache && [wholeSpan(cache, T, options.prefix)];
    const ranges = next === undefined ? (spans ?? [{ start: 0, length: T }]) : [roomOf(next)];
    for (const { start, length } of ranges) this.#checkPositions(start, length);
    const state = options.state ?? heldState(this.config, params);
    checkForward(this.config, tokens, state === undefined ? options : { ...options, state }, cache);
    const recompute = recomputeChoice(options.recompute);
    for (const { cache, length } of spans ?? []) cache.begin(length);
    return scope(() => {
      const model = parametersAt(params, "model");
      const table = model("embed_tokens.weight");
      const positions = next?.positions ?? (ranges.length > 1 ? positionsOf(ranges, tokens) : undefined);
      const angles = this.#rotary.angles(table, ranges, positions);
      for (const [i, span] of (spans ?? []).entries()) span.keyAngles = angles?.keys?.[i];
      const { documents, prefix, causal, jitterKey, blocks: wanted = [] } = options;
      const masks = {
        ...(documents === undefined ? {} : { documents }),
        ...(prefix === undefined ? {} : { prefix }),
        ...(causal === undefined ? {} : { causal }),
      };
      let stream: Stream = { x: this.#embed(model, tokens, ranges[0]!.start, positions, options), addition: undefined };
      const routers: Record<string, RouterReport> = {};
      const blocks: Record<number, Tensor> = {};
      for (const layer of this.config.layers.keys()) {
        const before = stream;
        const at = layerPrefix(layer);
        const context: BlockContext = {
          config: this.config,
          parameter: parametersAt(params, at),
          layer,
          angles: angles?.own,
          masks,
          spans,
          next,
          routerBias: state?.[routerBiasName(at)],
          jitterKey: jitterKey?.(layer),
        };
        const result = scope(() => (recompute ? recomputed(recompute, context, before) : block(context, before)));
        stream = result.stream;
        if (result.report !== undefined) routers[at] = result.report;
        if (wanted.includes(layer)) blocks[layer] = streamOutput(stream);
        // A parallel block only adds to the addition; a post-norm block's output is its stream.
        if (before.x !== stream.x && blocks[layer - 1] !== before.x) before.x.dispose();
        before.addition?.dispose();
      }
      for (const { cache, length } of spans ?? []) cache.advance(length);
      const end: Stream = { x: chosen(stream.x), addition: stream.addition && chosen(stream.addition) };
      const hidden = this.config.block === "post" ? end.x : streamNormed(this.config, model, "norm", end).normed;
      return { hidden, routers, blocks };
    });
  }

  #checkPositions(start: number, length: number): void {
    if (start + length > this.config.maxSeqLen) {
      throw new ShapeError(
        `[Transformer] positions ${start}..${start + length - 1} exceed maxSeqLen ${this.config.maxSeqLen}. Shorten the sequence or raise maxSeqLen.`,
      );
    }
  }

  /**
   * Scores of the next token at every position.
   *
   * @param tokens - `[B, T]` int32
   * @returns `[B, T, vocabSize]`
   */
  logits(params: Parameters, tokens: Tensor, cache?: Remembered, options?: ForwardOptions): Tensor {
    return scope(() => this.head(params, this.hidden(params, tokens, cache, options)));
  }

  /**
   * Scores after the last position only: what generation needs.
   *
   * @returns `[B, vocabSize]`; of several caches, a row after each of their last `scored` tokens, or after the next one
   */
  lastLogits(params: Parameters, tokens: Tensor, cache?: Remembered, options?: ForwardOptions): Tensor {
    return scope(() => {
      const last = (all: Tensor) => (isNext(cache) ? all : slice(all, 1, -1));
      const rows = isSeveral(cache)
        ? lastRows(this.hidden(params, tokens, cache, options), cache)
        : this.#statesOf(params, tokens, cache, options ?? {}, last).hidden;
      return this.head(params, reshape(rows, [-1, this.config.dModel]));
    });
  }

  /**
   * Scores of the next token from rows of `hidden`, for who wants those of some positions only.
   *
   * @param hidden - `[…, dModel]`
   * @returns `[…, vocabSize]`
   */
  head(params: Parameters, hidden: Tensor): Tensor {
    return scope(() => {
      const logits = linear(this.#headInput(hidden), this.#output(params));
      const { finalSoftcap } = this.config;
      return finalSoftcap > 0 ? mul(tanh(mul(logits, 1 / finalSoftcap)), finalSoftcap) : logits;
    });
  }

  /**
   * Mean cross-entropy in nats over the positions with a target, with the routers' balancing losses by their coefficients; the logits never
   * exist as a whole. `lossParts` takes options.
   */
  loss(params: Parameters, batch: TokenBatch): Tensor {
    return scope(() => {
      const { input, weight, targets, settings, routers } = this.#toPredict(params, batch, {});
      return this.#balanced(linearCrossEntropy(input, weight, targets, settings), routers);
    });
  }

  /** `loss` with the cross-entropy of each position, and what the routers did. `loss` alone has a gradient. */
  lossParts(params: Parameters, batch: TokenBatch, options: LossOptions = {}): TransformerLossParts {
    return scope(() => {
      const { input, weight, targets, settings, routers } = this.#toPredict(params, batch, options);
      const parts = linearCrossEntropyParts(input, weight, targets, settings);
      return { ...parts, loss: this.#balanced(parts.loss, routers), routers };
    });
  }

  /** Frees the rotary tables; parameters are the caller's. */
  dispose(): void {
    this.#rotary.dispose();
  }

  #embed(
    model: Lookup,
    tokens: Tensor,
    start: number,
    placed: Tensor | undefined,
    { positions = placed && unsqueeze(placed, 0), inputEmbeds }: ForwardOptions,
  ): Tensor {
    const table = model("embed_tokens.weight");
    const { embeddingScale } = this.config;
    let x = embedding(table, tokens);
    // As a tensor of the table's dtype, so that the factor is rounded to it before the product is.
    if (embeddingScale !== 1) x = mul(x, full([], embeddingScale, { dtype: table.dtype, device: table.device }));
    if (inputEmbeds !== undefined) x = foreignOr(inputEmbeds, x);
    if (this.config.positions !== "learned") return x;
    const learned = model("embed_positions.weight");
    const T = tokens.shape[1]!;
    return add(x, positions === undefined ? slice(learned, 0, start, start + T) : embedding(learned, positions));
  }

  #output(params: Parameters): Tensor {
    return this.config.tieEmbeddings
      ? parametersAt(params, "model")("embed_tokens.weight")
      : parametersAt(params, "lm_head")("weight");
  }

  /** What the output layer multiplies. */
  #headInput(hidden: Tensor): Tensor {
    const ratio = widthRatio(this.config);
    return ratio === 1 ? hidden : mul(hidden, 1 / ratio);
  }

  #toPredict(params: Parameters, { tokens, targets, ...given }: TokenBatch, options: LossOptions) {
    const { labelSmoothing = 0, zLoss = 0, ...forward } = options;
    const { hidden, routers } = this.states(params, tokens, undefined, { ...given, ...forward });
    const foreign = given.inputEmbeds?.foreign;
    return {
      input: this.#headInput(hidden),
      weight: this.#output(params),
      targets:
        foreign === undefined
          ? targets
          : where(foreign, full(targets.shape, -100, { dtype: "int32", device: targets.device }), targets),
      settings: { softcap: this.config.finalSoftcap, labelSmoothing, zLoss },
      routers,
    };
  }

  #balanced(loss: Tensor, routers: Record<string, RouterReport>): Tensor {
    const { auxCoef = 0, zCoef = 0 } = this.config.experts ?? {};
    return Object.values(routers).reduce((total, { aux, zLoss }) => {
      const balanced = auxCoef > 0 && aux !== undefined ? add(total, mul(aux, auxCoef)) : total;
      return zCoef > 0 ? add(balanced, mul(zLoss, zCoef)) : balanced;
    }, loss);
  }
}

/** All tokens of a pass over one cache. */
function wholeSpan(cache: KvCache, T: number, prefix: ForwardOptions["prefix"]): CacheSpan {
  const ofAll = typeof prefix === "number" ? prefix : undefined;
  return { cache, from: 0, length: T, start: cache.length, prefix: ofAll, keyAngles: undefined };
}

/** The positions that the next tokens may come to be at, while their caches have room. */
function roomOf({ caches }: NextTokens): PositionRange {
  return { start: 0, length: Math.max(...caches.map(({ length, room }) => length + room)) };
}

/** int32 `[T]` */
function positionsOf(ranges: readonly PositionRange[], { device }: Tensor): Tensor {
  return tensor(Int32Array.from(ranges.flatMap(({ start, length }) => Array.from({ length }, (_, i) => start + i))), {
    device,
  });
}

/** The state of `initState`, if the parameters hold it: those of a checkpoint do. */
function heldState(config: ResolvedConfig, params: Parameters): Record<string, Tensor> | undefined {
  if (!config.experts?.routerBias) return undefined;
  const names = stateNames(config);
  if (!names.every((name) => Object.hasOwn(params, name))) return undefined;
  return Object.fromEntries(names.map((name) => [name, params[name]!]));
}

function stateNames(config: ResolvedConfig): string[] {
  const layers = [...config.layers.keys()].filter((i) => expertsOf(config, i)?.routerBias);
  return layers.map((i) => routerBiasName(layerPrefix(i)));
}

function routerBiasName(layer: string): string {
  return `${layer}.mlp.router.bias`;
}

/** The stream with what the next norm would add to it. */
function streamOutput({ x, addition }: Stream): Tensor {
  return addition === undefined ? x : add(x, addition);
}

function foreignOr({ values, foreign }: ForeignEmbeds, x: Tensor): Tensor {
  return where(unsqueeze(foreign, -1), values, x);
}
