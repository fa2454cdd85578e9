/** The data of a run: training batches, what is measured on held-out data, and what the model must know of them. */
import type { BatchSet, BatchSource, Tokenizer } from "@llmeff/data";
import type { DataConfig } from "../../config/data-schema.js";
import { openComposition } from "./open-composition.js";
import { openDocuments } from "./open-documents.js";
import { openShards } from "./open-shards.js";
import { openText } from "./open-text.js";

export interface OpenedData {
  train: BatchSource;
  valid: Validation;
  vocabSize: number;
  /** Positions of a sequence. */
  seqLen: number;
  /** Turns the model's tokens into text; generated tasks have none. */
  tokenizer: Tokenizer | undefined;
  /** Tokens that end a document. */
  stopTokens: readonly number[];
  /** Gives the files up that batches are read from. */
  close(): Promise<void>;
}

/** What an evaluation measures: answers to questions, or the loss on held-out text. */
export type Validation =
  | { metric: "accuracy"; answers: BatchSet }
  | { metric: "validationLoss"; causal: LossSets; objectives: Readonly<Record<string, LossSets>> };

/** Held-out text by its source. */
export type LossSets = Readonly<Record<string, LossSet>>;

export interface LossSet {
  batches: BatchSet;
  /** Of the text of the targets, where all of it is predicted. */
  bytes?: number;
}

export interface OpenDataOptions {
  /** Paths in `data` are relative to this file. */
  configFile: string;
  /** Of the batches, unless `data` has its own. */
  seed: number;
  /** Sequences of each set that is measured. */
  evaluateWindows: number;
  signal?: AbortSignal | undefined;
}

/** @throws {IoError | FormatError} if a file can't be read; {@link UsageError} if there is too little text */
export async function openData(data: DataConfig, options: OpenDataOptions): Promise<OpenedData> {
  const given = { ...options, seed: data.seed ?? options.seed };
  switch (data.kind) {
    case "text":
      return openText(data, given);
    case "documents":
      return openDocuments(data, given);
    case "shards":
      return openShards(data, given);
    case "relationComposition":
      return openComposition(data, given);
  }
}
