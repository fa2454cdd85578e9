/** One evaluation sample: the line format `longctx-sample-1`, which generators write and checker, runner and scorers read. */

export const SAMPLE_SCHEMA = "longctx-sample-1";

/**
 * Version of the generators: a part of every sample's identity. It changes whenever the same seed would give other bytes, so that cached
 * sets and results of different versions never mix.
 */
export const GENERATOR_VERSION = 2;

/** Tasks that have samples. `icl_scaling` writes samples of `conlang`; NLL against position has none. */
export const TASK_NAMES = [
  "latent_list",
  "mrcr",
  "idk",
  "niah",
  "variable_tracking",
  "common_words",
  "frequent_words",
  "doc_qa",
  "conlang",
] as const;

export type TaskName = (typeof TASK_NAMES)[number];

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface SampleBudget {
  /** Prompt and answer together. */
  maxTokens: number;
  /** Tokens of `maxTokens` that are kept for the answer. */
  reserve: number;
  /** Tokens of all messages, with the overhead of the chat template. */
  promptTokens: number;
  /** `id` of the tokenizer that counted. */
  tokenizer: string;
}

/** What every sample tells about itself; each task adds its own fields. */
export interface SampleMeta {
  /** Tokens of the largest unit of filler: the budget is met up to this, or to 2 % + 64 tokens. */
  maxUnitTokens: number;
  /** `promptTokens / (maxTokens - reserve)`. */
  fill: number;
  [field: string]: unknown;
}

/**
 * A prompt with its answer. `target` is the answer itself (latent_list, mrcr), a letter (idk), all wanted values (niah,
 * variable_tracking, common_words, frequent_words) or the accepted answers (doc_qa, conlang).
 */
export interface Sample<Target extends string | string[] = string | string[], Meta extends SampleMeta = SampleMeta> {
  schema: typeof SAMPLE_SCHEMA;
  /** Unique within a set, and equal for equal bytes. */
  id: string;
  task: TaskName;
  seed: number;
  index: number;
  generatorVersion: number;
  budget: SampleBudget;
  /** Number of relevant items; grows apart from the length. */
  complexity: number;
  messages: Message[];
  target: Target;
  meta: Meta;
}
