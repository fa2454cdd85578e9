/** One block: attention and feed-forward around the residual stream, with the norms where the model has them. */
import { add, type RandomKey, type Tensor } from "@llmeff/tensor";
import { expertsOf } from "../config.js";
import { type AttentionContext, attend } from "./attention.js";
import { expertsLayer, type RouterReport } from "./experts.js";
import { feedForward, takesAlong } from "./feed-forward.js";
import { below, type Lookup } from "./lookup.js";
import { normAlong, normed, type Stream, streamNormed } from "./norm.js";

export interface BlockContext extends Omit<AttentionContext, "parameter"> {
  /** The parameters of this block. */
  parameter: Lookup;
  /** Bias of its router's choices. */
  routerBias: Tensor | undefined;
  jitterKey: RandomKey | undefined;
}

export interface BlockResult {
  stream: Stream;
  /** Of its router, if it has one. */
  report?: RouterReport;
}

/** The feed-forward part of a block, dense or a mixture of experts. */
function wide(context: BlockContext, x: Tensor): { y: Tensor; report?: RouterReport } {
  const { config, parameter, layer, routerBias: bias, jitterKey: key, spans, next } = context;
  const mlp = below(parameter, "mlp");
  const experts = expertsOf(config, layer);
  if (experts === undefined) return { y: feedForward(config, mlp, x) };
  // What is dropped depends on later tokens of the batch: step by step, nothing would be as in one pass (models.md §4.2).
  return expertsLayer(config, experts, mlp, x, { bias, key, dropless: spans !== undefined || next !== undefined });
}

/** Whether the products of a block of next tokens can take its norms and its stream along. */
function takesAll({ config, layer, next }: BlockContext): boolean {
  const plain = config.block === "pre" && config.norm === "rms" && config.attentionBias === "none";
  return next !== undefined && plain && expertsOf(config, layer) === undefined && takesAlong(config);
}

/** A block of next tokens, whose products read the weights for few rows: what else there is to do goes along with them. */
function nextBlock(context: BlockContext, x: Tensor): BlockResult {
  const { config, parameter, layer } = context;
  const norm = (name: string) => normAlong(config, parameter, `${name}_layernorm`);
  const along = { norm: norm("input"), residual: x };
  const attended = attend({ ...context, parameter: below(parameter, "self_attn"), along }, config.layers[layer]!, x);
  const after = { norm: norm("post_attention"), residual: attended };
  return { stream: { x: feedForward(config, below(parameter, "mlp"), attended, after), addition: undefined } };
}

/** `[B, T, C]` streams; an addition that the block leaves is added by the next norm. */
export function block(context: BlockContext, stream: Stream): BlockResult {
  if (takesAll(context)) return nextBlock(context, stream.x);
  const { config, parameter, layer } = context;
  const attention = (x: Tensor) =>
    attend({ ...context, parameter: below(parameter, "self_attn") }, config.layers[layer]!, x);
  const norm = (name: string, x: Tensor) => normed(config, parameter, `${name}_layernorm`, x);
  const addNorm = (name: string, from: Stream) => streamNormed(config, parameter, `${name}_layernorm`, from);
  const ending = (result: { y: Tensor; report?: RouterReport }, to: Stream): BlockResult =>
    result.report === undefined ? { stream: to } : { stream: to, report: result.report };

  if (config.block === "post") {
    // The stream is a norm already, with nothing to be added.
    const mixed = addNorm("post_attention", { x: stream.x, addition: attention(stream.x) }).normed;
    const result = wide(context, mixed);
    const { normed: x } = addNorm("post_feedforward", { x: mixed, addition: result.y });
    return ending(result, { x, addition: undefined });
  }
  const { x, normed: first } = addNorm("input", stream);
  if (config.block === "parallel") {
    const result = wide(context, first);
    return ending(result, { x, addition: add(attention(first), result.y) });
  }
  if (config.block === "sandwich") {
    const mixed = norm("post_attention", attention(first));
    const second = addNorm("pre_feedforward", { x, addition: mixed });
    const result = wide(context, second.normed);
    return ending(result, { x: second.x, addition: norm("post_feedforward", result.y) });
  }
  const second = addNorm("post_attention", { x, addition: attention(first) });
  const result = wide(context, second.normed);
  return ending(result, { x: second.x, addition: result.y });
}
