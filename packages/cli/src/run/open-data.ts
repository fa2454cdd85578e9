/** The data of a run: training batches, the validation set, and what the model must know of them. */
import { dirname, resolve } from "node:path";
import {
  type BatchSet,
  type BatchSource,
  byteTokenizer,
  characterTokenizer,
  loadHuggingFaceTokenizer,
  RelationComposition,
  readText,
  sequentialWindows,
  splitTokens,
  TokenDataset,
  type Tokenizer,
} from "@llmeff/data";
import { type DataConfig, type Metric, metricOf, seqLenOf } from "../config/training-schema.js";
import { UsageError } from "../errors.js";

export interface OpenedData {
  train: BatchSource;
  valid: BatchSet;
  vocabSize: number;
  /** Positions of a sequence. */
  seqLen: number;
  /** What the validation set measures. */
  metric: Metric;
  /** Bytes of the text that the validation set's targets are; generated tasks have none. */
  validBytes?: number;
  /** Turns the model's tokens into text; generated tasks have none. */
  tokenizer: Tokenizer | undefined;
}

export interface OpenDataOptions {
  /** Paths in `data` are relative to this file. */
  configFile: string;
  /** Of the batches, unless `data` has its own. */
  seed: number;
  /** Sequences of the validation set. */
  evaluateWindows: number;
}

/** @throws {IoError | FormatError} if a file can't be read; {@link UsageError} if there is too little text */
export async function openData(data: DataConfig, options: OpenDataOptions): Promise<OpenedData> {
  const seed = data.seed ?? options.seed;
  return data.kind === "text" ? openText(data, seed, options) : openComposition(data, seed, options);
}

async function openText(
  data: Extract<DataConfig, { kind: "text" }>,
  seed: number,
  { configFile, evaluateWindows }: OpenDataOptions,
): Promise<OpenedData> {
  const { seqLen, batchSize, validFraction = 0.1 } = data;
  const path = resolve(dirname(configFile), data.path);
  const text = await readText(path);
  const tokenizer = await openTokenizer(data.tokenizer, text, configFile);
  const ids = tokenizer.encode(text);
  const { train, valid } = splitTokens(ids, validFraction);
  if (train.length <= seqLen || valid.length < 2) {
    throw new UsageError(
      `[${configFile}] data.seqLen: ${path} has ${ids.length} tokens, of which ${train.length} are for training; ` +
        `a sequence needs ${seqLen + 1}. Take a longer text or a smaller seqLen.`,
    );
  }
  const validSet = sequentialWindows(valid, { seqLen, batchSize, maxWindows: evaluateWindows });
  return {
    train: new TokenDataset(train, { seqLen, batchSize, seed }),
    valid: validSet,
    validBytes: bytesOfTargets(tokenizer, valid, validSet.targetCount),
    vocabSize: tokenizer.vocabSize,
    seqLen,
    metric: metricOf(data),
    tokenizer,
  };
}

/** Bytes of the tokens after the first: some tokenizers write that one differently at the start of a text. */
function bytesOfTargets(tokenizer: Tokenizer, ids: Int32Array, count: number): number {
  const bytes = (length: number) => Buffer.byteLength(tokenizer.decode(ids.subarray(0, length)));
  return bytes(1 + count) - bytes(1);
}

async function openTokenizer(name: string, text: string, configFile: string): Promise<Tokenizer> {
  if (name === "character") return characterTokenizer(text);
  if (name === "byte") return byteTokenizer();
  return loadHuggingFaceTokenizer(resolve(dirname(configFile), name));
}

function openComposition(
  data: Extract<DataConfig, { kind: "relationComposition" }>,
  seed: number,
  { evaluateWindows }: OpenDataOptions,
): OpenedData {
  const { size, batchSize, encoding = "tagged" } = data;
  const train = new RelationComposition({ size, batchSize, encoding, seed });
  const valid = new RelationComposition({ size, batchSize, encoding, seed, split: "valid" });
  return {
    train,
    valid: valid.first(evaluateWindows),
    vocabSize: train.vocabSize,
    seqLen: seqLenOf(data),
    metric: metricOf(data),
    tokenizer: undefined,
  };
}
