/** What every generator is asked for, and how its parts become a sample. */
import { createHash } from "node:crypto";
import { OptionError } from "@llmeff/native/errors";
import { GENERATOR_VERSION, SAMPLE_SCHEMA, type Sample, type SampleMeta, type TaskName } from "../sample.js";
import { type Fit, type FitOptions, fitToBudget, type Overhead } from "../tokens/budget.js";
import { type Tokenizer, utf8Bytes } from "../tokens/tokenizer.js";

export interface SampleOptions {
  /** Same seed, same samples; an integer in `0 .. 2^53 - 1`. */
  seed: number;
  /** Number of the sample in its set. */
  index: number;
  /** Prompt and answer together. */
  maxTokens: number;
  /** Default: one token a byte. */
  tokenizer?: Tokenizer;
  /** What the chat template adds; default nothing. */
  overhead?: Overhead;
  /** Tokens kept for the answer; default: the task's. */
  reserve?: number;
  /** Tokens for thinking, beside those for the answer, so that the two never compete; default 0. */
  thinkingBudget?: number;
}

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;

function checkOptions(where: string, options: SampleOptions): void {
  for (const field of ["seed", "index", "maxTokens", "reserve", "thinkingBudget"] as const) {
    const value = options[field];
    if (value !== undefined && !isCount(value)) {
      throw new OptionError(`[${where}] ${field} must be an integer in 0..2^53-1; received ${value}.`);
    }
  }
}

export interface SampleParts<Target extends string | string[], Meta extends object> {
  task: TaskName;
  options: SampleOptions;
  /** All that shapes the sample beside the options; a part of its id. */
  params: object;
  complexity: number;
  render: FitOptions["render"];
  units: FitOptions["units"];
  finite?: boolean;
  /** Tokens that the longest right answer may take. */
  reserve: number;
  target: Target;
  meta: (fit: Fit) => Meta;
}

function sampleId(task: TaskName, options: SampleOptions, identity: object): string {
  const hash = createHash("sha256").update(JSON.stringify(identity)).digest("hex").slice(0, 12);
  return `${task}-${options.seed}-${options.index}-${options.maxTokens}-${hash}`;
}

/**
 * Fits the filler to the budget and puts the sample together.
 *
 * @throws {BudgetTooSmallError} if the relevant part alone is too long
 */
export function assembleSample<Target extends string | string[], Meta extends object>(
  parts: SampleParts<Target, Meta>,
): Sample<Target, Meta & SampleMeta> {
  const { task, options, params, complexity, render, units, target, finite } = parts;
  checkOptions(task, options);
  const { seed, index, maxTokens, tokenizer = utf8Bytes, overhead, thinkingBudget = 0 } = options;
  const reserve = (options.reserve ?? parts.reserve) + thinkingBudget;
  const fit = fitToBudget({ where: task, render, units, maxTokens, reserve, tokenizer, overhead, finite });
  const budget = { maxTokens, reserve, promptTokens: fit.promptTokens, tokenizer: tokenizer.id };
  return {
    schema: SAMPLE_SCHEMA,
    id: sampleId(task, options, {
      GENERATOR_VERSION,
      seed,
      index,
      params,
      maxTokens,
      reserve,
      tokenizer: tokenizer.id,
    }),
    task,
    seed,
    index,
    generatorVersion: GENERATOR_VERSION,
    budget,
    complexity,
    messages: fit.messages,
    target,
    meta: { ...parts.meta(fit), maxUnitTokens: fit.maxUnitTokens, fill: fit.fill },
  };
}
