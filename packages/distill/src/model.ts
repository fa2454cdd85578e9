/** What distillation asks of a model, whoever made it. */
import type { Batch } from "@llmeff/data";
import type { ForwardOptions, HiddenStates, Transformer } from "@llmeff/models";
import { add, mul, type Tensor, tensor } from "@llmeff/tensor";
import type { ObjectiveContext, TrainBatch } from "@llmeff/train";
import type { TeacherScores } from "./targets.js";

export type Parameters = Record<string, Tensor>;

/** A model whose logits are `softcap(hidden · weightᵀ)`. */
export interface TokenModel {
  /** `[B, T, C]` */
  hidden(params: Parameters, batch: TrainBatch): Tensor;
  /** `[V, C]` */
  outputWeight(params: Parameters): Tensor;
  /** Logits become `softcap · tanh(logits / softcap)`; default 0, off. */
  softcap?: number;
  /**
   * The hidden states of a training step, and what the model adds to any loss, such as for the balance of its experts; default `hidden` and nothing.
   *
   * @param blocks - numbers of inner blocks whose outputs are wanted too, for `features` of `distill`
   */
  trained?(params: Parameters, batch: TrainBatch, blocks?: readonly number[]): TrainedStates;
}

export interface TrainedStates {
  hidden: Tensor;
  /** The loss with what the model adds. */
  balanced(loss: Tensor): Tensor;
  /** What the loop is told of the step beside the loss: goes to `modelState` of `train` by `context.collect`. */
  collected?: Readonly<Record<string, Tensor>>;
  /** `[B, T, C]`: outputs of the inner blocks that were asked for, by their number. */
  blocks?: Readonly<Record<number, Tensor>>;
}

/** The states of a student in a training step, which the loop is told what it collects of. */
export function trainedStates(
  model: TokenModel,
  params: Parameters,
  batch: TrainBatch,
  { collect }: Pick<ObjectiveContext, "collect">,
  blocks: readonly number[] = [],
): TrainedStates {
  const states = statesOf(model, params, batch, blocks);
  for (const [name, value] of Object.entries(states.collected ?? {})) collect(name, value);
  return states;
}

function statesOf(model: TokenModel, params: Parameters, batch: TrainBatch, blocks: readonly number[]): TrainedStates {
  return model.trained?.(params, batch, blocks) ?? { hidden: model.hidden(params, batch), balanced: (loss) => loss };
}

/** A teacher in inference: its parameters never get a gradient. */
export interface Teacher {
  model: TokenModel;
  params: Parameters;
}

/** A teacher's scores for a batch, as what they are made of. */
export function scoresBy({ model, params }: Teacher, batch: TrainBatch): TeacherScores {
  return scoresFrom(model, params, model.hidden(params, batch));
}

function scoresFrom(model: TokenModel, params: Parameters, hidden: Tensor): TeacherScores {
  const { softcap = 0 } = model;
  return { hidden, weight: model.outputWeight(params), softcap };
}

/** What a teacher knows of a batch: its scores, and the outputs of some inner blocks. */
export function knowledgeBy(
  teacher: Teacher,
  batch: TrainBatch,
  blocks: readonly number[],
): { scores: TeacherScores; blocks: Readonly<Record<number, Tensor>> } {
  if (blocks.length === 0) return { scores: scoresBy(teacher, batch), blocks: {} };
  const { model, params } = teacher;
  const states = statesOf(model, params, batch, blocks);
  return { scores: scoresFrom(model, params, states.hidden), blocks: states.blocks ?? {} };
}

/** A batch as tensors where the parameters are, with its masks. */
export function inputsOf({ tokens, targets, batchSize, seqLen, extras = {} }: Batch, params: Parameters): TrainBatch {
  const device = Object.values(params)[0]?.device;
  const options = { shape: [batchSize, seqLen], device };
  const further = Object.entries(extras).map(([name, { data, shape }]) => [name, tensor(data, { shape, device })]);
  return { tokens: tensor(tokens, options), targets: tensor(targets, options), extras: Object.fromEntries(further) };
}

/**
 * A Transformer of @llmeff/models as distillation takes it. It sees the masks of packed rows (`documents`, `prefix`, `positions` among a batch's extras) as
 * far as it has a use for them, and adds the balancing losses of its experts as its own `loss` does.
 *
 * @param options.state - biases of its routers (`Transformer.initState`); default those among the parameters. Training steps then collect the routers' loads, by
 * the prefix of their layer, for the `modelState` that balances them
 */
export function tokenModel(model: Transformer, options: { state?: Record<string, Tensor> } = {}): TokenModel {
  const { tieEmbeddings, finalSoftcap, mup, dModel } = model.config;
  const ratio = mup ? dModel / mup.baseWidth : 1;
  const headInput = (hidden: Tensor) => (ratio === 1 ? hidden : mul(hidden, 1 / ratio));
  const statesOf = (params: Parameters, { tokens, extras }: TrainBatch, blocks: readonly number[] = []) =>
    model.states(params, tokens, undefined, { ...masksOf(model, extras), ...options, blocks });
  const loads = (routers: HiddenStates["routers"]) =>
    Object.fromEntries(Object.entries(routers).map(([layer, { load }]) => [layer, load]));
  return {
    hidden: (params, batch) => headInput(statesOf(params, batch).hidden),
    outputWeight: (params) => params[tieEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight"]!,
    softcap: finalSoftcap,
    trained(params, batch, wanted) {
      const { hidden, routers, blocks } = statesOf(params, batch, wanted);
      return {
        hidden: headInput(hidden),
        balanced: (loss) => balancedLoss(model, routers, loss),
        blocks,
        ...(options.state && { collected: loads(routers) }),
      };
    },
  };
}

function masksOf({ config }: Transformer, { documents, prefix, positions }: TrainBatch["extras"]): ForwardOptions {
  return {
    ...(documents && { documents }),
    ...(prefix && { prefix }),
    // Rotary positions are relative and need none.
    ...(positions && config.positions === "learned" && { positions }),
  };
}

/** In the order of the model's own loss, so that the bits are the same. */
function balancedLoss({ config }: Transformer, routers: HiddenStates["routers"], loss: Tensor): Tensor {
  const { auxCoef = 0, zCoef = 0 } = config.experts ?? {};
  return Object.values(routers).reduce((total, { aux, zLoss }) => {
    const balanced = auxCoef > 0 && aux !== undefined ? add(total, mul(aux, auxCoef)) : total;
    return zCoef > 0 ? add(balanced, mul(zLoss, zCoef)) : balanced;
  }, loss);
}
