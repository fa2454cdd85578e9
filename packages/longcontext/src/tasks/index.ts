export { CONDITIONS, type Condition } from "./conlang/book.js";
export { type ConlangMeta, type ConlangParams, conlang, type Direction } from "./conlang/conlang.js";
export { englishReferences, englishSentence } from "./conlang/english.js";
export type { Clause, Grammar, NounPhrase } from "./conlang/grammar.js";
export {
  ICL_PAIRS,
  type IclMeta,
  type IclOptions,
  type IclParams,
  iclSample,
  longestIclSample,
} from "./conlang/icl-scaling.js";
export { constructedSentence } from "./conlang/realize.js";
export { type CommonWordsMeta, type CommonWordsParams, commonWords } from "./counting/common-words.js";
export { type FrequentWordsMeta, type FrequentWordsParams, frequentWords } from "./counting/frequent-words.js";
export { type DocQaMeta, type DocQaParams, docQa } from "./doc-qa/doc-qa.js";
export type { Haystack } from "./haystack.js";
export { type IdkMeta, type IdkParams, idk } from "./idk/idk.js";
export { type LatentListMeta, type LatentListParams, latentList } from "./latent-list/latent-list.js";
export { type ProgramResult, type PythonError, runProgram, VIEWS, type View } from "./latent-list/program.js";
export { isNeutral, relevantOperations } from "./latent-list/relevance.js";
export { type MrcrMeta, type MrcrParams, mrcr } from "./mrcr/mrcr.js";
export { type DepthOptions, type GridOptions, needleDepths, needleGrid } from "./niah/grid.js";
export { NIAH_VARIANTS, type NiahMeta, type NiahParams, type NiahVariant, niah } from "./niah/niah.js";
export type { SampleOptions } from "./sample-options.js";
export {
  type VariableTrackingMeta,
  type VariableTrackingParams,
  variableTracking,
} from "./variable-tracking/variable-tracking.js";
