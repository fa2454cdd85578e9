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
// Tokens
export { fromTokenizer, type Tokenizer, utf8Bytes } from "./tokens/tokenizer.js";
