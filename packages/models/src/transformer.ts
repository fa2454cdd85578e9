import {
  add,
  addRmsNorm,
  attention,
  type CrossEntropyParts,
  embedding,
  keep,
  linear,
  linearCrossEntropy,
  linearCrossEntropyParts,
  mul,
  reshape,
  rmsNorm,
  rope,
  ropeTables,
  ShapeError,
  scope,
  simplicialAttention,
  slice,
  swiglu,
  type Tensor,
  tanh,
} from "@llmeff/tensor";
import { type TrainingFlops, trainingFlopsPerToken } from "./accounting.js";
import type { KvCache, LayerCache } from "./cache.js";
import { type ResolvedConfig, type ResolvedLayer, resolveConfig, type TransformerConfig } from "./config.js";
import { countParameters, type InitOptions, initParameters, layerPrefix, type Parameters } from "./parameters.js";

/** Token ids and what each position must predict; -100 marks positions without a target. */
export interface TokenBatch {
  /** `[B, T]` int32 */
  tokens: Tensor;
  /** `[B, T]` int32 */
  targets: Tensor;
}

interface Angles {
  cos: Tensor;
  sin: Tensor;
}

/**
 * A decoder-only Transformer as functions of its parameters (which it does not hold): pre-norm residual blocks of grouped-query attention
 * and SwiGLU, rotary positions, and by layer dot-product or 2-simplicial attention.
 *
 * @example
 * const model = new Transformer({ vocabSize: 65, dModel: 64, numLayers: 2, numHeads: 4, maxSeqLen: 128 });
 * const params = model.init(0);
 * const { value, grads } = valueAndGrad((p) => model.loss(p, batch), params);
 */
export class Transformer {
  readonly config: ResolvedConfig;
  /** Rotary tables by dtype and device, for maxSeqLen positions. */
  readonly #tables = new Map<string, Angles>();

  /** @throws {OptionError} naming the field of the configuration that doesn't fit */
  constructor(config: TransformerConfig) {
    this.config = resolveConfig(config);
  }

  /** Fresh parameters; the same seed gives the same values on every device, up to the rounding of their normal distribution. */
  init(seed: number, options?: InitOptions): Parameters {
    return initParameters(this.config, seed, options);
  }

  /** Number of values in all parameters. */
  get parameterCount(): number {
    return countParameters(this.config);
  }

  /** Operations of a training step per token of sequences of `seqLen`; see `trainingFlopsPerToken`. */
  flopsPerToken(seqLen: number): TrainingFlops {
    return trainingFlopsPerToken(this.config, seqLen);
  }

  /**
   * Output of the last block, normed.
   *
   * @param tokens - `[B, T]` int32
   * @param cache - positions before `tokens`; theirs are added to it
   * @returns `[B, T, dModel]`
   */
  hidden(params: Parameters, tokens: Tensor, cache?: KvCache): Tensor {
    if (tokens.rank !== 2)
      throw new ShapeError(`[Transformer] tokens must be [B, T]; received [${tokens.shape.join(", ")}].`);
    const [, T] = tokens.shape as [number, number];
    const start = cache?.length ?? 0;
    if (start + T > this.config.maxSeqLen) {
      throw new ShapeError(
        `[Transformer] positions ${start}..${start + T - 1} exceed maxSeqLen ${this.config.maxSeqLen}. Shorten the sequence or raise maxSeqLen.`,
      );
    }
    cache?.begin(T);
    return scope(() => {
      const table = parameter(params, "model.embed_tokens.weight");
      const learned = this.config.positions === "learned";
      const angles = learned ? undefined : this.#angles(table, start, T);
      let x = embedding(table, tokens);
      if (learned) x = add(x, slice(parameter(params, "model.embed_positions.weight"), 0, start, start + T));
      for (const [i, layer] of this.config.layers.entries()) {
        x = scope(() => this.#block(params, layerPrefix(i), layer, x, angles, start, cache?.layers[i]));
      }
      cache?.advance(T);
      return this.#norm(params, "model.norm", x);
    });
  }

  /**
   * Scores of the next token at every position.
   *
   * @param tokens - `[B, T]` int32
   * @returns `[B, T, vocabSize]`
   */
  logits(params: Parameters, tokens: Tensor, cache?: KvCache): Tensor {
    return scope(() => this.#head(params, this.hidden(params, tokens, cache)));
  }

  /** Scores after the last position only, `[B, vocabSize]`: what generation needs. */
  lastLogits(params: Parameters, tokens: Tensor, cache?: KvCache): Tensor {
    return scope(() => {
      const hidden = this.hidden(params, tokens, cache);
      return this.#head(params, reshape(slice(hidden, 1, -1), [tokens.shape[0]!, this.config.dModel]));
    });
  }

  /** Mean cross-entropy in nats over the positions with a target; the logits never exist as a whole. */
  loss(params: Parameters, batch: TokenBatch): Tensor {
    const hidden = this.hidden(params, batch.tokens);
    return linearCrossEntropy(hidden, this.#output(params), batch.targets, { softcap: this.config.finalSoftcap });
  }

  /** `loss` with the cross-entropy of each position. */
  lossParts(params: Parameters, batch: TokenBatch): CrossEntropyParts {
    const hidden = this.hidden(params, batch.tokens);
    return linearCrossEntropyParts(hidden, this.#output(params), batch.targets, { softcap: this.config.finalSoftcap });
  }

  /** Frees the rotary tables; parameters are the caller's. */
  dispose(): void {
    for (const { cos, sin } of this.#tables.values()) {
      cos.dispose();
      sin.dispose();
    }
    this.#tables.clear();
  }

  #output(params: Parameters): Tensor {
    return parameter(params, this.config.tieEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight");
  }

  #head(params: Parameters, hidden: Tensor): Tensor {
    const logits = linear(hidden, this.#output(params));
    const { finalSoftcap } = this.config;
    return finalSoftcap > 0 ? mul(tanh(mul(logits, 1 / finalSoftcap)), finalSoftcap) : logits;
  }

  #angles(table: Tensor, start: number, length: number): Angles {
    const { device } = table;
    const dtype = table.dtype === "float64" ? "float64" : "float32";
    const key = `${dtype} ${device}`;
    let tables = this.#tables.get(key);
    if (tables === undefined) {
      const { maxSeqLen, headDim, ropeBase } = this.config;
      tables = keep(ropeTables(maxSeqLen, headDim, { base: ropeBase, dtype, device }));
      this.#tables.set(key, tables);
    }
    return { cos: slice(tables.cos, 0, start, start + length), sin: slice(tables.sin, 0, start, start + length) };
  }

  #norm(params: Parameters, name: string, x: Tensor): Tensor {
    return rmsNorm(x, parameter(params, `${name}.weight`), { eps: this.config.normEps });
  }

  #block(
    params: Parameters,
    at: string,
    layer: ResolvedLayer,
    x: Tensor,
    angles: Angles | undefined,
    start: number,
    cache: LayerCache | undefined,
  ): Tensor {
    const attend = layer.kind === "dot" ? this.#dot : this.#simplicial;
    const project = (name: string, input: Tensor) => linear(input, parameter(params, `${at}.${name}.weight`));
    const normed = this.#norm(params, `${at}.input_layernorm`, x);
    const attended = attend.call(this, params, `${at}.self_attn`, layer as never, normed, angles, start, cache);
    const [B, T] = x.shape as [number, number];
    const [mixed, wide] = addRmsNorm(
      x,
      project("self_attn.o_proj", reshape(attended, [B, T, this.config.numHeads * this.config.headDim])),
      parameter(params, `${at}.post_attention_layernorm.weight`),
      { eps: this.config.normEps },
    );
    return add(mixed, project("mlp.down_proj", swiglu(project("mlp.gate_proj", wide), project("mlp.up_proj", wide))));
  }

  /** A projection as heads `[B, T, heads, headDim]`, with the RMS norm of its name if the layer has them. */
  #heads(params: Parameters, at: string, name: string, x: Tensor, normed: boolean): Tensor {
    const projected = linear(x, parameter(params, `${at}.${name}_proj.weight`));
    const [B, T] = x.shape as [number, number];
    const { headDim } = this.config;
    const heads = reshape(projected, [B, T, projected.shape[2]! / headDim, headDim]);
    return normed ? this.#norm(params, `${at}.${name}_norm`, heads) : heads;
  }

  #dot(
    params: Parameters,
    at: string,
    layer: Extract<ResolvedLayer, { kind: "dot" }>,
    x: Tensor,
    angles: Angles | undefined,
    start: number,
    cache: LayerCache | undefined,
  ): Tensor {
    const q = turned(this.#heads(params, at, "q", x, layer.qkNorm), angles);
    const k = turned(this.#heads(params, at, "k", x, layer.qkNorm), angles);
    const v = this.#heads(params, at, "v", x, false);
    const options = {
      softcap: this.config.attentionSoftcap,
      ...(layer.window === undefined ? {} : { window: layer.window }),
    };
    if (cache === undefined) return attention(q, k, v, options);
    const keys = cache.k.append(k);
    const values = cache.v.append(v);
    return attention(q, keys.rows, values.rows, { ...options, qOffset: start - keys.offset });
  }

  #simplicial(
    params: Parameters,
    at: string,
    layer: Extract<ResolvedLayer, { kind: "simplicial" }>,
    x: Tensor,
    angles: Angles | undefined,
    start: number,
    cache: LayerCache | undefined,
  ): Tensor {
    const turns = layer.rope ? angles : undefined;
    const q = turned(this.#heads(params, at, "q", x, layer.qkNorm), turns);
    const k1 = turned(this.#heads(params, at, "k", x, layer.qkNorm), turns);
    const k2 = this.#heads(params, at, "k2", x, layer.qkNorm);
    const v1 = this.#heads(params, at, "v", x, false);
    const v2 = this.#heads(params, at, "v2", x, false);
    const { form, k2Bias, v2Bias, w1, w2 } = layer;
    const options = { form, k2Bias, v2Bias, ...(w1 === undefined ? {} : { w1 }), ...(w2 === undefined ? {} : { w2 }) };
    if (cache === undefined) return simplicialAttention(q, k1, k2, v1, v2, options);
    const first = { k: cache.k.append(k1), v: cache.v.append(v1) };
    const second = { k: cache.k2!.append(k2), v: cache.v2!.append(v2) };
    return simplicialAttention(q, first.k.rows, second.k.rows, first.v.rows, second.v.rows, {
      ...options,
      qOffset: start,
      k1Offset: first.k.offset,
      k2Offset: second.k.offset,
    });
  }
}

/** Heads turned by their positions, if positions are rotary. */
function turned(heads: Tensor, angles: Angles | undefined): Tensor {
  return angles ? rope(heads, angles.cos, angles.sin) : heads;
}

function parameter(params: Parameters, name: string): Tensor {
  const tensor = params[name];
  if (tensor === undefined) {
    throw new ShapeError(
      `[Transformer] the parameters lack "${name}". Are they of a model with another configuration?`,
    );
  }
  return tensor;
}
