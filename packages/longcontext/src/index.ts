// Samples

// Check
export { type CheckOptions, type CheckResult, checkSample } from "./check/check-sample.js";
export { EVERY_TASK, type Variant } from "./check/every-task.js";
export { BudgetTooSmallError, GenerationError, HaystackTooShortError } from "./errors.js";
export {
  GENERATOR_VERSION,
  type Message,
  SAMPLE_SCHEMA,
  type Sample,
  type SampleBudget,
  type SampleMeta,
  TASK_NAMES,
  type TaskName,
} from "./sample.js";
export * from "./score/index.js";
export { FORMAT_NAMES, type FormatName } from "./scribe/formats.js";
export { STYLE_NAMES, type StyleName } from "./scribe/styles.js";
// Texts
export { type TextKey, writeText } from "./scribe/text.js";
export * from "./stats/index.js";
export { CONDITIONS, type Condition } from "./tasks/conlang/book.js";
export { type ConlangMeta, type ConlangParams, conlang, type Direction } from "./tasks/conlang/conlang.js";
export { englishReferences, englishSentence } from "./tasks/conlang/english.js";
export type { Clause, Grammar, NounPhrase } from "./tasks/conlang/grammar.js";
export { ICL_PAIRS, type IclMeta, type IclOptions, type IclParams, iclSample } from "./tasks/conlang/icl-scaling.js";
export { constructedSentence } from "./tasks/conlang/realize.js";
export { type CommonWordsMeta, type CommonWordsParams, commonWords } from "./tasks/counting/common-words.js";
export { type FrequentWordsMeta, type FrequentWordsParams, frequentWords } from "./tasks/counting/frequent-words.js";
export { type DocQaMeta, type DocQaParams, docQa } from "./tasks/doc-qa/doc-qa.js";
export type { Haystack } from "./tasks/haystack.js";
export { type IdkMeta, type IdkParams, idk } from "./tasks/idk/idk.js";
export { type LatentListMeta, type LatentListParams, latentList } from "./tasks/latent-list/latent-list.js";
export { type ProgramResult, type PythonError, runProgram, VIEWS, type View } from "./tasks/latent-list/program.js";
export { isNeutral, relevantOperations } from "./tasks/latent-list/relevance.js";
export { type MrcrMeta, type MrcrParams, mrcr } from "./tasks/mrcr/mrcr.js";
export { type DepthOptions, type GridOptions, needleDepths, needleGrid } from "./tasks/niah/grid.js";
export { NIAH_VARIANTS, type NiahMeta, type NiahParams, type NiahVariant, niah } from "./tasks/niah/niah.js";
// Tasks
export type { SampleOptions } from "./tasks/sample-options.js";
export {
  type VariableTrackingMeta,
  type VariableTrackingParams,
  variableTracking,
} from "./tasks/variable-tracking/variable-tracking.js";
export { budgetTolerance, countPrompt, type Overhead } from "./tokens/budget.js";
export { type CalibratedTokenizer, type CalibrateOptions, calibrated, type UsageProbe } from "./tokens/calibrated.js";
export type { Placement } from "./tokens/placement.js";
// Tokens
export { fromTokenizer, type Tokenizer, utf8Bytes } from "./tokens/tokenizer.js";
