// Importers, models, reports, runs
export * from "./importers/index.js";
export * from "./models/index.js";
export * from "./report/index.js";
export * from "./runner/index.js";
// Samples
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
export * from "./stats/index.js";
export * from "./suite/index.js";
// Tokens
export { fromTokenizer, type Tokenizer, utf8Bytes } from "./tokens/tokenizer.js";
