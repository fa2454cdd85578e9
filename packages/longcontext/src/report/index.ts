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
export { evaluationReport, type NllResult, type ReportInput, tokensLabel } from "./document.js";
export { chooseFailures, failureExcerpt } from "./failures.js";
