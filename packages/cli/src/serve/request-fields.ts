/**
 * The fields that both kinds of requests share, their check, and what becomes of fields that aren't supported: those that would change the
 * answer are refused, those that say nothing about it are passed over.
 */
import type { SamplingOptions } from "@llmeff/models";
import { z } from "zod";
import { flag, numberWhere, object, positiveInteger, ratio, text, wholeNumber } from "../config/fields.js";
import { isObject } from "../config/merge.js";
import { badField } from "./api-error.js";

/** A checked request, beside what it is to continue. */
export interface GenerationRequest {
  model: string;
  /** Answers to each prompt. */
  n: number;
  sampling: SamplingOptions;
  seed: number | undefined;
  /** Tokens of an answer at most; the prompt must leave room for them. */
  maxTokens: number | undefined;
  /** Where that isn't said: as many, or what there is room for. */
  defaultMaxTokens: number;
  stop: readonly string[];
  /** How many of the likeliest tokens to tell with each; undefined tells of none, not even of those drawn. */
  topLogProbs: number | undefined;
  stream: boolean;
  includeUsage: boolean;
}

const number = (low: number, high: number) =>
  numberWhere(`a number in ${low}..${high}`, (value) => value >= low && value <= high);

const stopText = () => text("a text that isn't empty");
const mostStops = 16;

const sharedFields = {
  model: text("the name of a model"),
  n: numberWhere(
    "an integer in 1..128",
    (value) => Number.isSafeInteger(value) && value >= 1 && value <= 128,
  ).nullish(),
  temperature: number(0, 2).nullish(),
  top_p: numberWhere("a number above 0 and at most 1", (value) => value > 0 && value <= 1).nullish(),
  /** As other servers that know the field take it: 0 and -1 mean all. */
  top_k: numberWhere("a positive integer, or 0 or -1 for all", (k) => Number.isSafeInteger(k) && k >= -1).nullish(),
  min_p: ratio().nullish(),
  /** Logits over a smaller one, or times a larger, could be beyond all numbers. */
  repetition_penalty: numberWhere("a number in 1e-6..1e6", (value) => value >= 1e-6 && value <= 1e6).nullish(),
  presence_penalty: number(-2, 2).nullish(),
  frequency_penalty: number(-2, 2).nullish(),
  logit_bias: z
    .record(z.string().regex(/^\d{1,10}$/), number(-100, 100), {
      error: () => "expected an object of token ids, with a number in -100..100 for each.",
    })
    .nullish(),
  seed: numberWhere("an integer", Number.isSafeInteger).nullish(),
  stop: z
    .union([stopText(), z.array(stopText()).max(mostStops)], {
      error: () => `expected a text, or at most ${mostStops} of them, none empty.`,
    })
    .nullish(),
  max_tokens: wholeNumber().nullish(),
  stream: flag().nullish(),
  stream_options: object({ include_usage: flag().nullish(), include_obfuscation: flag().nullish() }).nullish(),
};

export const chatSharedFields = {
  ...sharedFields,
  max_tokens: positiveInteger().nullish(),
  max_completion_tokens: positiveInteger().nullish(),
  logprobs: flag().nullish(),
  top_logprobs: numberWhere("an integer in 0..20", (k) => Number.isSafeInteger(k) && k >= 0 && k <= 20).nullish(),
};

export const completionSharedFields = {
  ...sharedFields,
  logprobs: numberWhere("an integer in 0..20", (k) => Number.isSafeInteger(k) && k >= 0 && k <= 20).nullish(),
  echo: flag().nullish(),
};

/** What the shared fields of a request mean. */
export function sharedSettings(
  body: z.infer<z.ZodObject<typeof sharedFields>>,
): Omit<GenerationRequest, "topLogProbs" | "maxTokens" | "defaultMaxTokens"> {
  const { model, n, stop, stream, stream_options, seed } = body;
  if (stream_options && !stream) {
    throw badField("stream_options", "stream_options: expected only together with stream: true.");
  }
  return {
    model,
    n: n ?? 1,
    sampling: samplingOf(body),
    seed: seed ?? undefined,
    stop: typeof stop === "string" ? [stop] : (stop ?? []),
    stream: stream ?? false,
    includeUsage: stream_options?.include_usage ?? false,
  };
}

function samplingOf(body: z.infer<z.ZodObject<typeof sharedFields>>): SamplingOptions {
  const { temperature, top_p, top_k, min_p, repetition_penalty, presence_penalty, frequency_penalty, logit_bias } =
    body;
  const given = {
    temperature,
    topP: top_p,
    topK: top_k && top_k > 0 ? top_k : undefined,
    minP: min_p,
    repetitionPenalty: repetition_penalty,
    presencePenalty: presence_penalty,
    frequencyPenalty: frequency_penalty,
    logitBias: logit_bias,
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined && value !== null));
}

/** Fields that change the answer in a way that isn't supported, with the values by which they don't. */
const refused: Readonly<Record<string, (value: unknown) => boolean>> = {
  tools: isEmptyList,
  functions: isEmptyList,
  tool_choice: (value) => value === "none" || value === "auto",
  function_call: (value) => value === "none" || value === "auto",
  response_format: (value) => isObject(value) && value.type === "text",
  modalities: (value) => Array.isArray(value) && value.every((kind) => kind === "text"),
  audio: never,
  prediction: never,
  reasoning_effort: (value) => value === "none",
  verbosity: never,
  web_search_options: never,
  suffix: (value) => value === "",
  best_of: (value) => value === 1,
  store: (value) => value === false,
};

function isEmptyList(value: unknown): boolean {
  return Array.isArray(value) && value.length === 0;
}

function never(): boolean {
  return false;
}

/** Fields that don't change an answer. */
const passedOver: readonly string[] = [
  "user",
  "metadata",
  "service_tier",
  "safety_identifier",
  "prompt_cache_key",
  "prompt_cache_retention",
  "parallel_tool_calls",
];

/**
 * Checks the body of a request.
 *
 * @throws {ApiError} naming the first field that is wrong, unknown or not supported
 */
export function parseBody<T>(schema: z.ZodType<T>, body: unknown): T {
  if (!isObject(body)) throw badField("body", "The body must be a JSON object.");
  const rest: [name: string, value: unknown][] = [];
  for (const [name, value] of Object.entries(body)) {
    const isNeutral = Object.hasOwn(refused, name) ? refused[name]! : undefined;
    if (isNeutral === undefined) {
      if (!passedOver.includes(name)) rest.push([name, value]);
    } else if (value !== null && !isNeutral(value)) {
      throw badField(name, `${name} is not supported by this server. Leave it out.`, "unsupported_parameter");
    }
  }
  // Not by assignment: to that "__proto__" would be no field, and what it holds would pass for fields.
  const result = schema.safeParse(Object.fromEntries(rest));
  if (result.success) return result.data;
  const issue = deepest(result.error.issues[0]!);
  const name = issue.path.length > 0 ? pathText(issue.path) : ((issue as { keys?: string[] }).keys?.[0] ?? "body");
  throw badField(name, `${name}: ${issue.message.split("\n")[0]}`);
}

/** Of a value that none of several kinds fits, what is wrong with the kind that fits best. */
function deepest(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== "invalid_union") return issue;
  const inner = issue.errors.map((issues) => issues[0]).find((one) => one !== undefined && one.path.length > 0);
  return inner === undefined ? issue : deepest({ ...inner, path: [...issue.path, ...inner.path] });
}

/** `messages[0].content` */
function pathText(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === "number") return `${text}[${part}]`;
    return text === "" ? String(part) : `${text}.${String(part)}`;
  }, "");
}
