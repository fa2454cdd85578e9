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
  linearMany,
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

/** The residual stream, and what is still to be added to it: the next norm does so in the same pass. */
interface Stream {
  x: Tensor;
  addition: Tensor | undefined;
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
      let stream: Stream = { x, addition: undefined };
      for (const [i, layer] of this.config.layers.entries()) {
        const before = stream;
        stream = scope(() => this.#block(params, layerPrefix(i), layer, before, angles, start, cache?.layers[i]));
        before.x.dispose();
        before.addition?.dispose();
      }
      cache?.advance(T);
      return this.#normed(params, "model.norm", stream).normed;
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

  /** The stream with its addition, and its norm, in one pass. */
  #normed(params: Parameters, name: string, { x, addition }: Stream): { x: Tensor; normed: Tensor } {
    if (addition === undefined) return { x, normed: this.#norm(params, name, x) };
    const [sum, normed] = addRmsNorm(x, addition, parameter(params, `${name}.weight`), { eps: this.config.normEps });
    return { x: sum, normed };
  }

  #block(
    params: Parameters,
    at: string,
    layer: ResolvedLayer,
    stream: Stream,
    angles: Angles | undefined,
    start: number,
    cache: LayerCache | undefined,
  ): Stream {
    const attend = layer.kind === "dot" ? this.#dot : this.#simplicial;
    const weight = (name: string) => parameter(params, `${at}.${name}.weight`);
    const { x, normed } = this.#normed(params, `${at}.input_layernorm`, stream);
    const attended = attend.call(this, params, `${at}.self_attn`, layer as never, normed, angles, start, cache);
    const [B, T] = x.shape as [number, number];
    const mixed = linear(
      reshape(attended, [B, T, this.config.numHeads * this.config.headDim]),
      weight("self_attn.o_proj"),
    );
    const wide = this.#normed(params, `${at}.post_attention_layernorm`, { x, addition: mixed });
    const [gate, up] = linearMany(wide.normed, [weight("mlp.gate_proj"), weight("mlp.up_proj")] as const);
    return { x: wide.x, addition: linear(swiglu(gate, up), weight("mlp.down_proj")) };
  }

  /** Projections as heads `[B, T, heads, headDim]`, those of `normed` with the RMS norm of their name. */
  #heads(params: Parameters, at: string, x: Tensor, names: readonly string[], normed: readonly string[]): Tensor[] {
    const [B, T] = x.shape as [number, number];
    const { headDim } = this.config;
    const weights = names.map((name) => parameter(params, `${at}.${name}_proj.weight`));
    return linearMany(x, weights).map((projected, i) => {
      const heads = reshape(projected, [B, T, projected.shape[2]! / headDim, headDim]);
      return normed.includes(names[i]!) ? this.#norm(params, `${at}.${names[i]}_norm`, heads) : heads;
    });
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
    const [q, k, v] = this.#heads(params, at, x, ["q", "k", "v"], layer.qkNorm ? ["q", "k"] : []) as Three;
    const options = {
      softcap: this.config.attentionSoftcap,
      ...(layer.window === undefined ? {} : { window: layer.window }),
    };
    if (cache === undefined) return attention(q, k, v, angles ? { ...options, rope: angles } : options);
    const keys = cache.k.append(turned(k, angles));
    const values = cache.v.append(v);
    return attention(turned(q, angles), keys.rows, values.rows, { ...options, qOffset: start - keys.offset });
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
    const names = ["q", "k", "k2", "v", "v2"];
    const heads = this.#heads(params, at, x, names, layer.qkNorm ? ["q", "k", "k2"] : []);
    const [straight, key, k2, v1, v2] = heads as [...Three, Tensor, Tensor];
    const q = turned(straight, turns);
    const k1 = turned(key, turns);
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

type Three = [Tensor, Tensor, Tensor];

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
