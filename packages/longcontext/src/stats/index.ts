export { bradleyTerry, winProbability } from "./bradley-terry.js";
export { type CurvePoint, cumulativeCurve, decimateCurve, type ScoredLength } from "./cumulative.js";
export { type HeatMap, type HeatMapAxes, type HeatMapRecord, heatMap } from "./heat-map.js";
export { IDK_CHANCE, type IdkAnswer, type IdkSummary, idkSummary } from "./idk-summary.js";
export { type MeanInterval, meanInterval, normalInterval, wilsonInterval } from "./intervals.js";
export { type LengthBin, lengthBins } from "./length-bins.js";
export {
  areaUnderCurve,
  crossOver,
  type Degradation,
  degradation,
  effectiveLength,
  type LengthScore,
  RULER_THRESHOLD,
  type RulerAverages,
  rulerAverages,
} from "./length-summary.js";
export { type GdmMrcrBuckets, gdmMrcrBuckets, type MrcrBuckets, openAiMrcrBins } from "./mrcr-buckets.js";
export { cumulativeNll, type NllBin, type NllPoint, nllBins, nllCurve } from "./nll-curve.js";
export {
  aboveFloor,
  guessLatentList,
  type LatentListProgram,
  latentListChance,
  type MrcrFloorOptions,
  type MrcrFloors,
  mrcrFloors,
} from "./noise-floors.js";
export { type PairedComparison, type PairedComparisonOptions, pairedComparison } from "./paired-comparison.js";
export { fitPowerLaw, type PowerLawFit } from "./power-law.js";
export { averageRanks, spearman } from "./spearman.js";
export { stackWeight } from "./stack-weight.js";
