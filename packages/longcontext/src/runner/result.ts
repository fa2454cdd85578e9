/** Results: one JSON object a line, written once and never changed. */
import type { Finish, Usage } from "../models/eval-model.js";
import type { Sample, TaskName } from "../sample.js";
import { utf8Length, utf8LengthOfPieces } from "../tokens/tokenizer.js";

export const RESULTS_SCHEMA = "longctx-results-1";

/**
 * `ok`; `truncated` by the token limit (scored); `refused` by the endpoint or a filter (counts as 0); `context_exceeded`, the prompt is
 * longer than the model takes (not counted in means, but told); `error`, no answer after all tries (likewise).
 */
export type Status = "ok" | "truncated" | "refused" | "context_exceeded" | "error";
export const STATUSES = [
  "ok",
  "truncated",
  "refused",
  "context_exceeded",
  "error",
] as const satisfies readonly Status[];

/** What a scorer makes of a reply. */
export interface Score {
  /** 0 to 1: the task's headline. */
  score: number;
  /** The other figures of the task, such as those of compatible scorers. */
  metrics?: Readonly<Record<string, number>>;
  /** What was taken out of the reply as the answer; null if there was none. Missing where the reply as a whole is the answer. */
  extracted?: string | null;
  /** What a model would get that knows nothing but the form of the answer. */
  floor?: number;
}

/** The facts of a sample that aggregation needs, so that no prompt has to be read again. */
export interface SampleFacts {
  id: string;
  task: TaskName;
  seed: number;
  index: number;
  complexity: number;
  /** Prompt and answer together, as asked for. */
  maxTokens: number;
  /** Of the prompt, as the generator's tokenizer counted. */
  budgetTokens: number;
  promptSha256: string;
  /** Places of the relevant items in percent of the context. */
  depths?: readonly number[];
  /** The depth of the grid's cell that the sample was made for, in percent. */
  askedDepth?: number;
  /** Samples of one transcript aren't independent. */
  cluster?: string;
  /** Variant of the task, such as `niah_mk2`. */
  variant?: string;
  /** MRCR: bytes of the right answer over those of the prompt, by which the length of both together is told in any tokenizer's tokens. */
  answerShare?: number;
}

export interface ResultRecord extends SampleFacts {
  /** Key of the request; see `requestKey`. */
  key: string;
  model: string;
  trial: number;
  status: Status;
  text: string;
  finish?: Finish;
  usage?: Usage;
  /** The endpoint gave no usage; `usage` is what our tokenizer counts. */
  usageEstimated?: true;
  cost?: number;
  /** The reply came from the cache of another run: nothing was paid here. */
  cached?: true;
  attempts: number;
  error?: string;
  ttftMs?: number;
  totalMs?: number;
  /** When it was written. */
  at: string;
  score?: number;
  metrics?: Readonly<Record<string, number>>;
  extracted?: string | null;
  floor?: number;
}

/** Names a sample with a model and a trial. */
export function recordId({ model, id, trial }: Pick<ResultRecord, "model" | "id" | "trial">): string {
  return `${model}\n${id}\n${trial}`;
}

/** Tokens of the prompt: as the endpoint counted where it did, else as our tokenizer does. */
export function promptTokensOf({ usage, usageEstimated, budgetTokens }: ResultRecord): number {
  return usage === undefined || usageEstimated ? budgetTokens : usage.promptTokens;
}

export function factsOf(sample: Sample, promptSha256: string): SampleFacts {
  const { id, task, seed, index, complexity, budget, meta } = sample;
  const depths = Array.isArray(meta.depths) ? meta.depths.map(Number) : undefined;
  return {
    id,
    task,
    seed,
    index,
    complexity,
    maxTokens: budget.maxTokens,
    budgetTokens: budget.promptTokens,
    promptSha256,
    ...(depths === undefined ? {} : { depths }),
    ...(typeof meta.askedDepth === "number" ? { askedDepth: meta.askedDepth } : {}),
    ...(meta.transcript === undefined ? {} : { cluster: `${budget.maxTokens}/${seed}/${meta.transcript}` }),
    ...variantOf(sample),
    ...(task === "mrcr" && typeof sample.target === "string"
      ? { answerShare: answerShare(sample, sample.target) }
      : {}),
  };
}

function answerShare({ messages }: Sample, target: string): number {
  return utf8Length(target) / utf8LengthOfPieces(messages.map(({ content }) => content));
}

/** What kind of its task a sample is, by the names that tasks are asked for. */
function variantOf({ task, meta }: Sample): { variant?: string } {
  if (typeof meta.variant === "string") return { variant: meta.variant };
  if (task === "mrcr" && typeof meta.needles === "number") return { variant: `mrcr_${meta.needles}` };
  if (task === "doc_qa" && meta.hops !== undefined) {
    if (typeof meta.literal === "boolean") return { variant: meta.literal ? "qa_literal" : "qa_paraphrased" };
    return { variant: `qa${meta.hops}` };
  }
  if (task === "conlang" && typeof meta.condition === "string") return { variant: `conlang_${meta.condition}` };
  return {};
}

/** Whether a value read from a file is a record; enough is checked that aggregation can't stumble. */
export function isResultRecord(value: unknown): value is ResultRecord {
  if (typeof value !== "object" || value === null) return false;
  const record = value as Record<string, unknown>;
  const texts = ["id", "task", "promptSha256", "key", "model", "status", "text", "at"];
  const numbers = ["seed", "index", "complexity", "maxTokens", "budgetTokens", "trial", "attempts"];
  return (
    texts.every((name) => typeof record[name] === "string") &&
    numbers.every((name) => Number.isFinite(record[name])) &&
    (STATUSES as readonly string[]).includes(record.status as string) &&
    (record.score === undefined || (Number.isFinite(record.score) && (record.score as number) >= 0))
  );
}
