export {
  type Aggregate,
  type AggregateOptions,
  type AtLength,
  aggregate,
  latestRecords,
  type ModelComparison,
  type TaskResult,
  taskLabel,
} from "./aggregate.js";
export { resultsCsv } from "./csv.js";
export { evaluationReport, type ReportInput } from "./document.js";
export { chooseFailures, failureExcerpt } from "./failures.js";
export { type NllReportInput, type NllResult, nllReport } from "./likelihood.js";
export { tokensLabel } from "./tokens-label.js";
