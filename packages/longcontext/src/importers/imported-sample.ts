/** A sample made of somebody else's prompt and answer. */
import { sha256 } from "../runner/identity.js";
import { GENERATOR_VERSION, type Message, SAMPLE_SCHEMA, type Sample, type TaskName } from "../sample.js";
import { countPrompt } from "../tokens/budget.js";
import { type Tokenizer, utf8Bytes } from "../tokens/tokenizer.js";

export interface ImportOptions {
  /** Counts the prompts; default bytes. */
  tokenizer?: Tokenizer;
  /** Tokens kept for the answer; default the format's usual. */
  reserve?: number;
}

export interface ImportedParts {
  task: TaskName;
  index: number;
  messages: Message[];
  target: string | string[];
  reserve: number;
  complexity?: number;
  /** Length that the set's maker gave the prompt; default our count. */
  length?: number | undefined;
  meta: Record<string, unknown>;
}

export function importedSample(parts: ImportedParts, options: ImportOptions): Sample {
  const { task, index, messages, target, complexity = 1, length, meta } = parts;
  const { tokenizer = utf8Bytes, reserve = parts.reserve } = options;
  const promptTokens = countPrompt(messages, tokenizer);
  const identity = sha256(JSON.stringify([messages, target])).slice(0, 12);
  return {
    schema: SAMPLE_SCHEMA,
    id: `${task}-import-${index}-${identity}`,
    task,
    seed: 0,
    index,
    generatorVersion: GENERATOR_VERSION,
    budget: { maxTokens: length ?? promptTokens + reserve, reserve, promptTokens, tokenizer: tokenizer.id },
    complexity,
    messages,
    target,
    meta: { maxUnitTokens: 0, fill: 1, ...meta },
  };
}
