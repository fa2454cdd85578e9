/** What distillation asks of a model, whoever made it. */
import type { Batch } from "@llmeff/data";
import type { Transformer } from "@llmeff/models";
import { type Tensor, tensor } from "@llmeff/tensor";
import type { TrainBatch } from "@llmeff/train";
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
}

/** A teacher in inference: its parameters never get a gradient. */
export interface Teacher {
  model: TokenModel;
  params: Parameters;
}

/** A teacher's scores for a batch, as what they are made of. */
export function scoresBy({ model, params }: Teacher, batch: TrainBatch): TeacherScores {
  const { softcap = 0 } = model;
  return { hidden: model.hidden(params, batch), weight: model.outputWeight(params), softcap };
}

/** A batch as tensors where the parameters are. */
export function inputsOf({ tokens, targets, batchSize, seqLen }: Batch, params: Parameters): TrainBatch {
  const options = { shape: [batchSize, seqLen], device: Object.values(params)[0]?.device };
  return { tokens: tensor(tokens, options), targets: tensor(targets, options), extras: {} };
}

/** A Transformer of @llmeff/models as distillation takes it. */
export function tokenModel(model: Transformer): TokenModel {
  const { tieEmbeddings, finalSoftcap } = model.config;
  return {
    hidden: (params, { tokens }) => model.hidden(params, tokens),
    outputWeight: (params) => params[tieEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight"]!,
    softcap: finalSoftcap,
  };
}
