/** What a checkpoint keeps of its run, so that it can be used without the config file. */
import { createTokenizer, type JsonObject, type Tokenizer, type TokenizerSpec } from "@llmeff/data";
import type { TransformerConfig } from "@llmeff/models";
import { FormatError } from "@llmeff/native/errors";
import { seqLenOf } from "../config/data-schema.js";
import { isObject, toJson } from "../config/merge.js";
import type { TrainingConfig } from "../config/training-schema.js";
import type { OpenedData } from "./data/open-data.js";

export interface RunConfig {
  model: TransformerConfig;
  /** null for generated tasks. */
  tokenizer: TokenizerSpec | null;
  /** Those that end a document of the training. */
  stopTokens?: readonly number[];
  /** The config file's content. */
  training: TrainingConfig;
}

/** The model that a training config and its data describe. */
export function modelConfig(config: TrainingConfig, vocabSize: number): TransformerConfig {
  return { maxSeqLen: seqLenOf(config.data), ...toJson(config.model), vocabSize } as unknown as TransformerConfig;
}

export function runConfig(config: TrainingConfig, data: OpenedData): JsonObject {
  const { tokenizer, vocabSize, stopTokens } = data;
  return toJson({
    model: modelConfig(config, vocabSize),
    tokenizer: tokenizer?.toJSON() ?? null,
    ...(stopTokens.length > 0 && { stopTokens }),
    training: config,
  } satisfies RunConfig);
}

/** What a checkpoint's `config` says. @throws {FormatError} if it wasn't written by this command */
export function readRunConfig(path: string, config: JsonObject): RunConfig {
  if (!isObject(config.model) || !isObject(config.training) || !("tokenizer" in config)) {
    throw new FormatError(
      `[llmeff] the checkpoint ${path} doesn't say what model it is of. Was it written by another program than llmeff?`,
    );
  }
  return config as unknown as RunConfig;
}

export function tokenizerOf({ tokenizer }: RunConfig): Tokenizer | undefined {
  return tokenizer === null ? undefined : createTokenizer(tokenizer);
}
