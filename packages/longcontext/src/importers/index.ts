export type { ImportOptions } from "./imported-sample.js";
export { lmEvalRecords, needleRecords } from "./logs.js";
export { type MrcrCsvColumns, mrcrCsvSamples, openAiMrcrSamples } from "./mrcr.js";
export { rulerSamples } from "./ruler.js";
