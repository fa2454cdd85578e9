/** One block: attention and feed-forward around the residual stream, with the norms where the model has them. */
import { add, type RandomKey, type Tensor } from "@llmeff/tensor";
import { expertsOf } from "../config.js";
import { type AttentionContext, attend } from "./attention.js";
import { expertsLayer, type RouterReport } from "./experts.js";
import { feedForward } from "./feed-forward.js";
import { below, type Lookup } from "./lookup.js";
import { normed, type Stream, streamNormed } from "./norm.js";

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

/** `[B, T, C]` streams; an addition that the block leaves is added by the next norm. */
export function block(context: BlockContext, stream: Stream): BlockResult {
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
