export {
  generateSet,
  isMadeFrom,
  originOf,
  readSamples,
  readSummary,
  type SetSpec,
  type SetSummary,
  type SetTokens,
  writeSet,
} from "./sample-set.js";
export { scoreSample, targetText } from "./score-sample.js";
export { type EvalTask, TASK_GROUPS, TASKS, type TaskOptions, tasksNamed } from "./tasks.js";
