/** What a forward pass may be told beside its tokens. */
import { OptionError, type RandomKey, ShapeError, type Tensor } from "@llmeff/tensor";
import { isNext, isSeveral, type Remembered } from "./cached-tokens.js";
import type { ResolvedConfig } from "./config.js";
import type { RecomputeChoice } from "./layers/recompute.js";

/** Which keys a query may see, beside what the windows of the layers allow. Only dot-product layers have these masks. */
export interface AttentionMasks {
  /** int32 `[B, T]`: tokens of several documents in a row, which don't see each other. */
  documents?: Tensor;
  /** Leading positions that every query sees (prefix language model): a number, or int32 `[B]` or `[B, T]`; with documents from each one's start. */
  prefix?: number | Tensor;
  /** A position sees no later one; default true. */
  causal?: boolean;
}

/** Vectors of another encoder in the places of some tokens. */
export interface ForeignEmbeds {
  /** `[B, T, dModel]`, of the parameters' dtype; what stands where `foreign` is false is not used. They aren't scaled as tokens' embeddings are. */
  values: Tensor;
  /** bool `[B, T]` */
  foreign: Tensor;
}

export interface ForwardOptions extends AttentionMasks {
  /** int32 `[B, T]`: rows of a `learned` position table; default 0, 1, …. Rotary positions are relative and need none, packed or not. */
  positions?: Tensor;
  inputEmbeds?: ForeignEmbeds;
  /** Biases of the routers' choices by the names of `Transformer.initState`; default those among the parameters. */
  state?: Record<string, Tensor>;
  /** Numbers of blocks whose outputs `Transformer.states` returns too, such as for distillation of hidden states; default none, which costs nothing. */
  blocks?: readonly number[];
  /**
   * Keep less of each block for the backward pass, which computes the rest again: the same bits with less memory. `"block"` or `true` keeps its input alone,
   * for a third more operations; `"selective"` also what attention and the products of the model's width gave, and computes norms and the feed-forward part's wide activations again;
   * `"activations"` the results of all products and attentions, so that only cheap operations run again. Default false.
   */
  recompute?: boolean | RecomputeChoice;
  /** The key of each layer's jitter of its router, which differs from step to step. Without it there is none. */
  jitterKey?: (layer: number) => RandomKey;
}

function isBatchTime(x: Tensor, tokens: Tensor): boolean {
  return x.rank === 2 && x.shape.every((n, i) => n === tokens.shape[i]);
}

/** Whether documents and prefixes can be told to all layers. */
export function hasMasks({ layers }: ResolvedConfig): boolean {
  return layers.every(({ kind }) => kind === "dot");
}

/**
 * Refuses options that a model has no use for, or that contradict each other, before anything is computed.
 *
 * @throws {OptionError} {@link ShapeError}
 */
export function checkForward(
  config: ResolvedConfig,
  tokens: Tensor,
  options: ForwardOptions,
  cache?: Remembered,
): void {
  const { documents, prefix, causal = true, positions, inputEmbeds, state, blocks = [] } = options;
  const learned = config.positions === "learned";
  const prefixed = prefix !== undefined || (isSeveral(cache) && cache.some((part) => part.prefix !== undefined));
  const masked = documents !== undefined || prefixed || !causal;
  const fail = (message: string) => {
    throw new OptionError(`[Transformer] ${message}`);
  };
  if (masked && !hasMasks(config)) {
    fail("documents, prefix and causal: false are masks of dot-product layers; this model has 2-simplicial ones.");
  }
  if (masked && config.layers.some((layer) => layer.kind === "dot" && layer.scaleFrom !== undefined)) {
    fail(
      "documents, prefix and causal: false change how many keys a query sees, which layers with scaleFrom take from its position. Leave them out.",
    );
  }
  if (
    cache !== undefined &&
    (documents !== undefined || !causal || (prefix !== undefined && typeof prefix !== "number"))
  ) {
    fail("documents, prefixes by row and causal: false don't go with a cache. Leave the cache out.");
  }
  if ((isSeveral(cache) || isNext(cache)) && (prefix !== undefined || positions !== undefined)) {
    fail("several caches have their positions, and each may have a prefix of its own. Leave prefix and positions out.");
  }
  if (prefix !== undefined && !causal) fail("causal: false leaves a prefix nothing to free. Leave one of them out.");
  if (positions !== undefined && !learned) {
    fail('positions are rows of a table that this model, with positions: "rotary", doesn\'t have. Leave them out.');
  }
  if (documents !== undefined && learned && positions === undefined) {
    fail("documents in a model with learned positions need positions too, which begin at 0 in each document.");
  }
  const looksAhead = config.experts?.choice === "expert" && cache !== undefined;
  if (looksAhead) {
    fail('experts that choose tokens look ahead, which generation can\'t. Train with choice: "token" to generate.');
  }
  if (config.experts?.routerBias && state === undefined) {
    fail(
      "experts with routerBias need their state: give what initState() made, updated by nextState(), or hold it among the parameters.",
    );
  }
  const last = config.layers.length - 1;
  const stranger = blocks.find((number) => !Number.isSafeInteger(number) || number < 0 || number > last);
  if (stranger !== undefined) fail(`blocks must be numbers in 0..${last}; received ${stranger}.`);
  for (const [name, x] of Object.entries({ documents, positions, foreign: inputEmbeds?.foreign })) {
    if (x === undefined || isBatchTime(x, tokens)) continue;
    throw new ShapeError(
      `[Transformer] ${name} must be [B, T], here [${tokens.shape.join(", ")}]; received [${x.shape.join(", ")}].`,
    );
  }
  const values = inputEmbeds?.values;
  if (values !== undefined && (values.rank !== 3 || !isBatchTimeOf(values, tokens, config.dModel))) {
    throw new ShapeError(
      `[Transformer] inputEmbeds.values must be [B, T, dModel], here [${tokens.shape.join(", ")}, ${config.dModel}]; received [${values.shape.join(", ")}].`,
    );
  }
}

function isBatchTimeOf(x: Tensor, tokens: Tensor, width: number): boolean {
  return x.shape[0] === tokens.shape[0] && x.shape[1] === tokens.shape[1] && x.shape[2] === width;
}
