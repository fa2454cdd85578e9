/** Sets of samples: made, written as JSON lines, and read one at a time. */
import { createHash } from "node:crypto";
import { FormatError, OptionError } from "@llmeff/native/errors";
import { writeFileAtomic } from "@llmeff/report";
import { fileLines, replaceLines } from "../file-lines.js";
import { canonicalJson, sha256 } from "../runner/identity.js";
import { GENERATOR_VERSION, SAMPLE_SCHEMA, type Sample, TASK_NAMES } from "../sample.js";
import type { TextSource } from "../scribe/text-source.js";
import type { Overhead } from "../tokens/budget.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { tasksNamed } from "./tasks.js";

/** What a generated set is made of; equal specs give equal bytes. */
export interface SetSpec {
  tasks: readonly string[];
  /** Prompt and answer together, in tokens. */
  lengths: readonly number[];
  /** Samples of each task at each length. */
  count: number;
  seed: number;
  thinkingBudget?: number;
  /** A text of the user's for needles in prose. */
  haystack?: { readonly name: string; readonly text: string };
  /** The replies of MRCR's chats (`readTextPool`). */
  texts?: TextSource;
}

export interface SetTokens {
  tokenizer: Tokenizer;
  overhead?: Overhead;
}

/** The samples of a set: task by task, and within it by length, so that shared prompt prefixes stand together. */
export function* generateSet(spec: SetSpec, { tokenizer, overhead }: SetTokens): Generator<Sample> {
  const { lengths, count, seed, thinkingBudget = 0, haystack, texts } = spec;
  for (const [name, value] of [["count", count], ...lengths.map((length) => ["lengths", length])] as [
    string,
    number,
  ][]) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new OptionError(`[generate] ${name} must be positive integers; received ${value}.`);
    }
  }
  for (const task of tasksNamed(spec.tasks)) {
    for (const maxTokens of lengths) {
      const counting = { tokenizer, ...(overhead === undefined ? {} : { overhead }) };
      const given = { ...(haystack && { haystack }), ...(texts && { texts }) };
      yield* task.samples({ seed, count, maxTokens, thinkingBudget, ...counting, ...given });
    }
  }
}

/** What a set of samples holds, so that nobody has to read it for that. */
export interface SetSummary {
  samples: number;
  /** Of all prompts, as the generator's tokenizer counts. */
  promptTokens: number;
  /** The most that all replies may take. */
  reserveTokens: number;
  /** Hash of the file. */
  sha256: string;
  /** How it was made: spec, tokenizer, generator version; or what it was imported from. */
  origin: Readonly<Record<string, unknown>>;
}

/** Where the summary of a set lies. */
export function summaryPath(path: string): string {
  return path.replace(/(?:\.jsonl)?$/, ".summary.json");
}

export function originOf(spec: SetSpec, { tokenizer }: SetTokens): Record<string, unknown> {
  const { haystack, texts, ...rest } = spec;
  // Of texts a hash alone: they may be long.
  const text = haystack && { haystack: { name: haystack.name, sha256: sha256(haystack.text) } };
  return {
    ...rest,
    ...text,
    ...(texts && { texts: texts.id }),
    tokenizer: tokenizer.id,
    generatorVersion: GENERATOR_VERSION,
  };
}

/**
 * Writes a set as a whole or not at all, with its summary beside it. Only one sample is held in memory.
 *
 * @param onSample - told of each sample, for progress
 */
export async function writeSet(
  path: string,
  samples: Iterable<Sample> | AsyncIterable<Sample>,
  origin: Readonly<Record<string, unknown>>,
  onSample: (sample: Sample) => void = () => {},
): Promise<SetSummary> {
  const hash = createHash("sha256");
  const summary = { samples: 0, promptTokens: 0, reserveTokens: 0 };
  async function* lines() {
    for await (const sample of samples) {
      const line = JSON.stringify(sample);
      hash.update(line).update("\n");
      summary.samples++;
      summary.promptTokens += sample.budget.promptTokens;
      summary.reserveTokens += sample.budget.reserve;
      yield line;
      onSample(sample);
    }
  }
  await replaceLines(path, lines());
  const whole = { ...summary, sha256: hash.digest("hex"), origin };
  await writeFileAtomic(summaryPath(path), `${JSON.stringify(whole, null, 2)}\n`);
  return whole;
}

/** The summary beside a set; undefined if there is none, or it belongs to another version of the file's maker. */
export async function readSummary(path: string): Promise<SetSummary | undefined> {
  try {
    let text = "";
    for await (const line of fileLines(summaryPath(path))) text += line;
    const summary = JSON.parse(text) as SetSummary;
    return typeof summary.samples === "number" && typeof summary.sha256 === "string" ? summary : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a set was made as told. */
export function isMadeFrom(summary: SetSummary | undefined, origin: Readonly<Record<string, unknown>>): boolean {
  return summary !== undefined && canonicalJson(summary.origin) === canonicalJson(origin);
}

/**
 * The samples of a file, one at a time.
 *
 * @throws {FormatError} naming the line that holds no sample; {@link IoError} if the file can't be read
 */
export async function* readSamples(path: string): AsyncGenerator<Sample> {
  let line = 0;
  for await (const text of fileLines(path)) {
    line++;
    if (text.trim() !== "") yield parseSample(text, `${path}, line ${line}`);
  }
}

function parseSample(text: string, where: string): Sample {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(`[samples] ${where}: expected a JSON object; ${(cause as Error).message}.`, { cause });
  }
  const sample = value as Partial<Sample> | null;
  const problem =
    sample?.schema !== SAMPLE_SCHEMA
      ? `schema "${SAMPLE_SCHEMA}", came ${JSON.stringify(sample?.schema)}`
      : typeof sample.id !== "string" || sample.id === ""
        ? "an id"
        : !TASK_NAMES.includes(sample.task as never)
          ? `a known task, came ${JSON.stringify(sample.task)}`
          : !Array.isArray(sample.messages) || sample.messages.length === 0
            ? "messages"
            : !(sample.budget !== undefined && sample.budget.reserve > 0 && sample.budget.promptTokens >= 0)
              ? "a budget with promptTokens and reserve"
              : typeof sample.target !== "string" && !Array.isArray(sample.target)
                ? "a target"
                : undefined;
  if (problem !== undefined) throw new FormatError(`[samples] ${where}: expected ${problem}. Generate the set anew.`);
  return sample as Sample;
}
