/**
 * Solves a sample again from its messages, by other code than the generator's, and holds the target against it. Free-text tasks use the
 * facts of `meta` besides, each of which must be found in the messages; conlang uses its grammar.
 */
import type { Sample, TaskName } from "../sample.js";
import { SAMPLE_SCHEMA, TASK_NAMES } from "../sample.js";
import { budgetTolerance, countPrompt, type Overhead } from "../tokens/budget.js";
import { type Tokenizer, utf8Bytes } from "../tokens/tokenizer.js";
import { solveConlang } from "./conlang.js";
import { solveCommonWords, solveFrequentWords } from "./counting.js";
import { solveDocQa } from "./doc-qa.js";
import { solveIdk } from "./idk.js";
import { solveLatentList } from "./latent-list.js";
import { solveMrcr } from "./mrcr.js";
import { solveNiah } from "./niah.js";
import { type Solution, sameAnswer } from "./solution.js";
import { solveVariableTracking } from "./variable-tracking.js";

export interface CheckResult {
  ok: boolean;
  /** What is wrong; empty if nothing is. */
  problems: string[];
  /** The answer found, undefined if none was. */
  answer: string | string[] | undefined;
}

export interface CheckOptions {
  /** Counts the prompt again, if it is the one of the sample; default: one token a byte. */
  tokenizer?: Tokenizer;
  overhead?: Overhead;
}

const SOLVERS: Readonly<Record<TaskName, (sample: Sample) => Solution>> = {
  latent_list: solveLatentList,
  mrcr: solveMrcr,
  idk: solveIdk,
  niah: solveNiah,
  variable_tracking: solveVariableTracking,
  common_words: solveCommonWords,
  frequent_words: solveFrequentWords,
  doc_qa: solveDocQa,
  conlang: solveConlang,
};

/** Never throws for a bad sample: what is wrong is told in `problems`. */
export function checkSample(sample: Sample, options: CheckOptions = {}): CheckResult {
  const shape = shapeProblems(sample);
  if (shape.length > 0) return { ok: false, problems: shape, answer: undefined };
  const { answer, problems } = solve(sample);
  const all = [...problems, ...budgetProblems(sample, options)];
  if (answer === undefined) all.push("no answer was found in the messages");
  else if (!sameAnswer(sample.target, answer)) {
    all.push(`the target is ${JSON.stringify(sample.target)}, the messages give ${JSON.stringify(answer)}`);
  }
  return { ok: all.length === 0, problems: all, answer };
}

function solve(sample: Sample): Solution {
  try {
    return SOLVERS[sample.task](sample);
  } catch (error) {
    // Fields of `meta` come from a file and may have any form.
    return { answer: undefined, problems: [`the sample cannot be read: ${(error as Error).message}`] };
  }
}

function shapeProblems(sample: Sample): string[] {
  if (typeof sample !== "object" || sample === null) return ["a sample must be an object"];
  const problems: string[] = [];
  if (sample.schema !== SAMPLE_SCHEMA)
    problems.push(`schema must be ${SAMPLE_SCHEMA}; it is ${JSON.stringify(sample.schema)}`);
  if (!TASK_NAMES.includes(sample.task)) problems.push(`task ${JSON.stringify(sample.task)} is not known`);
  if (!Array.isArray(sample.messages) || sample.messages.length === 0) problems.push("there are no messages");
  else if (sample.messages.some((message) => typeof message?.content !== "string"))
    problems.push("a message has no text");
  return problems;
}

function budgetProblems(sample: Sample, { tokenizer = utf8Bytes, overhead }: CheckOptions): string[] {
  const { budget, meta } = sample;
  const room = budget?.maxTokens - budget?.reserve;
  if (!(room > 0) || typeof meta?.maxUnitTokens !== "number") return ["budget or meta.maxUnitTokens is missing"];
  const problems: string[] = [];
  if (budget.tokenizer === tokenizer.id) {
    const counted = countPrompt(sample.messages, tokenizer, overhead);
    if (counted !== budget.promptTokens) problems.push(`the prompt has ${counted} tokens, not ${budget.promptTokens}`);
  }
  if (budget.promptTokens > room)
    problems.push(`the prompt has ${budget.promptTokens} tokens, above its room of ${room}`);
  if (!endsEarly(sample) && room - budget.promptTokens > budgetTolerance(room, meta.maxUnitTokens)) {
    problems.push(`the prompt has ${budget.promptTokens} tokens, far below its room of ${room}`);
  }
  return problems;
}

/** A book without sentences ends with its lexicon, whatever the room; so do K pairs. */
function endsEarly({ task, meta }: Sample): boolean {
  return task === "conlang" && ["none", "rules-only", "pairs"].includes(String(meta.condition));
}
