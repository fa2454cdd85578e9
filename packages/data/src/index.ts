export {
  type Batch,
  type BatchSet,
  type BatchSource,
  IGNORE_INDEX,
  type Json,
  type JsonObject,
} from "./batch.js";
export { byteTokenizer } from "./byte-tokenizer.js";
export { characterTokenizer } from "./character-tokenizer.js";
export {
  encodeCorpus,
  type JsonlOptions,
  type JsonlRecord,
  type ReadOptions,
  readText,
  streamJsonl,
  streamText,
} from "./corpus.js";
export { createTokenizer } from "./create-tokenizer.js";
export { type HuggingFaceTokenizer, huggingFaceTokenizer, loadHuggingFaceTokenizer } from "./hugging-face-tokenizer.js";
export { decodeIdx, type IdxArray, type IdxData, loadIdx } from "./idx.js";
export { llama2cTokenizer, loadLlama2cTokenizer } from "./llama2c-tokenizer.js";
export type { Seed } from "./philox.js";
export { fillNormal, fillUniform, type PhiloxFillOptions } from "./philox-fill.js";
export { type PrefetchOptions, prefetch } from "./prefetch.js";
export { Random, streamOf } from "./random.js";
export {
  RelationComposition,
  type RelationCompositionOptions,
  type Split,
} from "./relation-composition.js";
export { type SequentialWindowsOptions, sequentialWindows } from "./sequential-windows.js";
export { splitTokens, type TokenArray, TokenDataset, type TokenDatasetOptions } from "./token-dataset.js";
export type { DecodeOptions, EncodeOptions, Tokenizer, TokenizerSpec } from "./tokenizer.js";
export { tokenizerJson } from "./tokenizer-json.js";
export { type TrainBpeOptions, trainBpe } from "./train-bpe.js";
