export { type CheckOptions, type CheckResult, checkSample } from "./check-sample.js";
export { EVERY_TASK, type Variant } from "./every-task.js";
