export { CHOICE_LETTERS, type ChoiceLetter, extractChoice } from "./choice.js";
export { type ChrfCounts, type ChrfOptions, chrf, chrfCounts, corpusChrf } from "./chrf.js";
export { cleanMarkup, stripReasoning } from "./clean-response.js";
export { type LabelQuestion, labelExclusive } from "./label-exclusive.js";
export {
  extractLatentList,
  latentListScore,
  type ResponseMode,
} from "./latent-list.js";
export {
  MRCR_SCORERS,
  type MrcrAnswer,
  type MrcrScorer,
  type MrcrScorerName,
  type MrcrScores,
  mrcrGdmV2,
  mrcrMichelangelo,
  mrcrOpenAi,
  mrcrScores,
  mrcrStrict,
} from "./mrcr.js";
export { judgeScore } from "./needle-judge.js";
export { type MatchingBlock, matchingBlocks, ratio, type SequenceMatcherOptions } from "./sequence-matcher.js";
export { type SetOverlap, setF1, setOverlap, variableNames } from "./set-overlap.js";
export { type SquadScore, squadScore } from "./squad.js";
export { matchAll, matchPart, postprocess, type StringMatchOptions } from "./string-match.js";
export { extractTranslation, type TranslationScore, translationScore } from "./translation.js";
