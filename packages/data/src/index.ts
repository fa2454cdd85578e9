export {
  type Batch,
  type BatchArray,
  type BatchSet,
  type BatchSource,
  IGNORE_INDEX,
  type Json,
  type JsonObject,
} from "./batch.js";
export { byteTokenizer } from "./byte-tokenizer.js";
export {
  CANARY_MIN_TOKENS,
  type ExtractionTest,
  extractedShare,
  extractionTest,
  interleavedCanary,
  shuffledCanary,
} from "./canaries.js";
export { characterTokenizer } from "./character-tokenizer.js";
export { ContaminationCheck, type ContaminationOptions, type Overlap } from "./contamination.js";
export { type ControlTokenOptions, tagDocuments } from "./control-tokens.js";
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
export {
  corrupt,
  corruptionCounts,
  type Denoiser,
  decoderOnly,
  drawSpans,
  type Example,
  type Sentinels,
  type Span,
  type SpecialTokens,
  sentinelsNeeded,
  spansFromCuts,
} from "./denoising.js";
export { DocumentBatches, type DocumentBatchesOptions } from "./document-batches.js";
export {
  type DocumentSet,
  type DocumentSource,
  type DrawnDocument,
  documentSet,
  type MixtureOptions,
  type MixtureSource,
  mixDocuments,
  shuffledDocuments,
  temperatureShares,
} from "./documents.js";
export { ExampleMaker, type ExampleOptions } from "./examples.js";
export { type HeldOutDocuments, type HeldOutDocumentsOptions, heldOutDocuments } from "./held-out-documents.js";
export { type HoldOutOptions, holdOut } from "./hold-out.js";
export { type HuggingFaceTokenizer, huggingFaceTokenizer, loadHuggingFaceTokenizer } from "./hugging-face-tokenizer.js";
export { decodeIdx, type IdxArray, type IdxData, loadIdx } from "./idx.js";
export { llama2cTokenizer, loadLlama2cTokenizer } from "./llama2c-tokenizer.js";
export {
  type DenoiserKind,
  type ObjectiveKind,
  type ObjectivePreset,
  objectivePresets,
  resolveObjectives,
  type TextObjective,
} from "./objectives.js";
export {
  documentMask,
  PADDING_DOCUMENT,
  type PackedRow,
  type PackingMethod,
  packDocuments,
  packedRow,
  packingMethods,
  paddingWaste,
  splitDocument,
} from "./packing.js";
export { type ParquetRecord, streamParquet } from "./parquet.js";
export type { Seed } from "./philox.js";
export { fillNormal, fillUniform, type PhiloxFillOptions } from "./philox-fill.js";
export { type PrefetchOptions, prefetch } from "./prefetch.js";
export { Random, streamNumberOf, streamOf } from "./random.js";
export {
  type FunctionCompositionOptions,
  functionCompositionTask,
  type InductionOptions,
  inductionTask,
  type MatchOptions,
  matchTask,
  type ParityOptions,
  parityTask,
  ReasoningTask,
  type ReasoningTaskDefinition,
} from "./reasoning-tasks.js";
export { RelationComposition, type RelationCompositionOptions } from "./relation-composition.js";
export {
  drawPassages,
  type Passage,
  type RepetitionBin,
  type RepetitionBinOptions,
  RepetitionCounter,
  repetitionBins,
} from "./repetition.js";
export { SampledTask, type SampledTaskOptions, type Split } from "./sampled-task.js";
export {
  type BatchOf,
  SelectedWindows,
  type WindowedText,
  type WindowsAtOptions,
  windowsAt,
} from "./selected-windows.js";
export { scoreThreshold, selectBand, selectPerShard, selectTop } from "./selection.js";
export { type SequentialWindowsOptions, sequentialWindows } from "./sequential-windows.js";
export { ShardWindows } from "./shard-windows.js";
export { type ShuffledOrder, shuffledOrder } from "./shuffled-order.js";
export { type DataStage, inStages } from "./stages.js";
export { StopStrings } from "./stop-strings.js";
export { StreamingDecoder } from "./streaming-decoder.js";
export { splitTokens, type TokenArray, TokenDataset, type TokenDatasetOptions } from "./token-dataset.js";
export { openTokenShards, TokenShards, type WriteTokenShardsOptions, writeTokenShards } from "./token-shards.js";
export type { DecodeOptions, EncodeOptions, Tokenizer, TokenizerSpec } from "./tokenizer.js";
export { tokenizerJson } from "./tokenizer-json.js";
export { type TrainBpeOptions, trainBpe } from "./train-bpe.js";
