/** Has a model write the texts of a pool, a request each, into a file that survives interruption. */

import { randomInt, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { FormatError } from "@llmeff/native/errors";
import { AppendFile, takeLock } from "@llmeff/report";
import { GenerationError } from "../errors.js";
import { endsInNewline, fileLines, replaceLines } from "../file-lines.js";
import type { EvalModel, GenResult, Usage } from "../models/eval-model.js";
import { requireInteger } from "../require-integer.js";
import { Endpoint, type EndpointOptions } from "../runner/ask.js";
import { type Clock, systemClock } from "../runner/clock.js";
import type { Slot } from "../runner/concurrency.js";
import { addUsage, costOf, noUsage, SpendingGuard, type SpendingLimits, type UsageTotals } from "../runner/cost.js";
import { AttemptsError } from "../runner/retry.js";
import { type Stopped, Work } from "../runner/work.js";
import { type Tokenizer, utf8Length } from "../tokens/tokenizer.js";
import { withArticle } from "./frame.js";
import { LEAST_TOKENS, MOST_TOKENS, normalise, PoolRules } from "./pool-rules.js";
import type { TextKey } from "./text.js";
import { keyName, type PoolEntry, parsePoolLine, type VainReplies } from "./text-pool.js";

/** Variations of a request, so that one key has many different texts. */
export const TWEAKS = [
  "as told to a child",
  "as a warning",
  "as a memory of long ago",
  "as a rumour",
  "with a surprising end",
  "as seen by a stranger",
  "as a quarrel between friends",
  "as advice to a beginner",
  "on a stormy night",
  "with much praise",
] as const;

export interface WriteTextPoolOptions extends EndpointOptions {
  keys: readonly TextKey[];
  /** Texts of each key. */
  perKey: number;
  /** Default `TWEAKS`; of each key those first that its texts have the fewest of. */
  tweaks?: readonly string[];
  /** Counts the 40 to 512 tokens of a text; default: four bytes a token. */
  tokenizer?: Tokenizer;
  /** Replies that may break a rule for each text before the pool is given up; default 5. */
  attempts?: number;
  /** Tokens for thinking, beside the 1,024 of a reply; default 0. */
  thinkingBudget?: number;
  /** What may be spent on this file, earlier calls included. */
  spending?: SpendingLimits;
  /** Date of the entries; default: now. */
  date?: () => string;
  /** Ends the call when the requests under way are answered. */
  signal?: AbortSignal;
  clock?: Clock;
  onEntry?: (entry: PoolEntry, summary: Readonly<TextPoolSummary>) => void;
}

export interface TextPoolSummary {
  /** Replies that this call got. */
  asked: number;
  /** Texts that the file holds. */
  texts: number;
  /** Of `keys · perKey`, how many are not there yet. */
  missing: number;
  /** Entries that this call moved out of the file, since they break a rule. */
  dropped: number;
  /** What all replies took that the file tells of, those that broke a rule included. */
  usage: UsageTotals;
  /** Why the call ended before the last text. */
  stopped?: Stopped;
}

/** Most tokens of a reply. A text may have half as many; what is longer is known by that for too long. */
export const TEXT_REPLY_TOKENS = 2 * MOST_TOKENS;

/** What the model is asked for a text. */
export function textRequest({ format, topic, style }: TextKey, tweak: string): string {
  return `Write ${withArticle(format)} about ${topic} in the ${style} style, ${tweak}. Use 50 to 300 words, and invent a name and a number in the first few words. Give the text alone, without a title.`;
}

/**
 * Fills the file up to `perKey` valid texts of every key. Each text is appended when it is there, so a stopped call is continued by the
 * next; entries that break a rule (40 to 512 tokens, no refusal, distinct from all others) are moved to `${path}.dropped` and written anew. What replies
 * took of which no text came is a line of its own, `{"took": …}`, so that the limits hold over all calls. A kill costs the texts under way, and the line that
 * was being written.
 *
 * Requests are tried again, paced and limited as those of `runEvaluation`; but one at a time unless `concurrency` says more, when texts come in another order.
 *
 * @throws {FormatError} if the file holds anything else, which is left as it is; {@link GenerationError} if a key gets no valid text in `attempts` replies; {@link ModelError} if a request fails for good; `LockedError` if another
 * call writes the file. What was written till then is kept
 */
export async function writeTextPool(
  model: EvalModel,
  path: string,
  options: WriteTextPoolOptions,
): Promise<TextPoolSummary> {
  const { perKey, tweaks = TWEAKS, attempts = 5, thinkingBudget = 0 } = options;
  requireInteger("writeTextPool", "perKey", perKey, 1, 10_000);
  requireInteger("writeTextPool", "attempts", attempts, 1, 100);
  requireInteger("writeTextPool", "thinkingBudget", thinkingBudget, 0);
  requireInteger("writeTextPool", "number of tweaks", tweaks.length, 1, 10_000);
  await using _lock = await takeLock(`${path}.lock`, path, "writeTextPool");
  const rules = new PoolRules(options.tokenizer);
  const kept = await keepValid(path, rules);
  const file = await AppendFile.open(path);
  try {
    return await new Pool(model, options, rules, kept, file).fill();
  } finally {
    await file.close();
  }
}

/** A text that is wanted. */
interface Wanted {
  key: TextKey;
  tweak: string;
}

class Pool {
  readonly #options: WriteTextPoolOptions;
  readonly #rules: PoolRules;
  readonly #file: AppendFile;
  readonly #endpoint: Endpoint;
  readonly #wanted: Wanted[];
  readonly #summary: TextPoolSummary;
  readonly #work: Work;

  constructor(
    model: EvalModel,
    options: WriteTextPoolOptions,
    rules: PoolRules,
    { entries, usage, dropped }: Kept,
    file: AppendFile,
  ) {
    const { signal, spending = {}, concurrency = { max: 1 }, clock = systemClock } = options;
    this.#options = options;
    this.#rules = rules;
    this.#file = file;
    this.#wanted = wantedTexts(options, entries);
    this.#summary = { asked: 0, texts: entries.length, missing: this.#wanted.length, dropped, usage };
    this.#endpoint = new Endpoint(model, { ...options, concurrency }, new SpendingGuard(spending, usage), clock);
    this.#work = new Work(this.#summary, signal);
  }

  async fill(): Promise<TextPoolSummary> {
    await this.#work.each(this.#wanted, this.#endpoint.concurrency, (wanted, slot) => this.#write(wanted, slot));
    this.#work.end();
    return this.#summary;
  }

  async #write(wanted: Wanted, slot: Slot): Promise<void> {
    const took = noUsage();
    let entry: PoolEntry | undefined;
    try {
      entry = await this.#entry(wanted, slot, took);
    } finally {
      // Replies are paid for even if no text came of them: the next call counts them, too.
      if (entry === undefined && took.requests > 0) await this.#append({ took });
    }
    if (entry === undefined) return;
    await this.#append(entry);
    this.#summary.texts++;
    this.#summary.missing--;
    this.#options.onEntry?.(entry, this.#summary);
  }

  async #append(line: PoolEntry | VainReplies): Promise<void> {
    this.#file.append(Buffer.from(`${JSON.stringify(line)}\n`));
    await this.#file.flush();
  }

  /** Undefined if the call ends before a reply can be used. */
  async #entry({ key, tweak }: Wanted, slot: Slot, took: UsageTotals): Promise<PoolEntry | undefined> {
    const { attempts = 5, date = () => new Date().toISOString() } = this.#options;
    for (let attempt = 0; attempt < attempts; attempt++) {
      if (attempt > 0 && this.#work.halt.aborted) return undefined;
      const text = await this.#ask(textRequest(key, tweak), slot, took);
      if (text === undefined || !this.#rules.accept(key, text)) continue;
      return { key, tweak, text, model: this.#endpoint.model.id, date: date(), took };
    }
    throw new GenerationError(
      `[writeTextPool] the model gave no valid ${key.format} about ${key.topic} in ${attempts} tries. Texts need ${LEAST_TOKENS} to ${MOST_TOKENS} tokens and must differ from each other; what was written so far is kept.`,
    );
  }

  /** A reply as a text would have it; undefined for a refusal, and for one that was cut off. */
  async #ask(content: string, slot: Slot, took: UsageTotals): Promise<string | undefined> {
    const request = {
      messages: [{ role: "user" as const, content }],
      maxTokens: TEXT_REPLY_TOKENS + (this.#options.thinkingBudget ?? 0),
      temperature: 1,
      // Others for every reply wanted: the same would bring the same text again.
      seed: randomInt(2 ** 31),
      idempotencyKey: randomUUID(),
    };
    // No tokenizer makes more tokens of a text than it has bytes.
    const promptTokens = utf8Length(content);
    const measure = (result: GenResult) => result.usage ?? measured(content, result);
    try {
      const { value } = await this.#endpoint.ask(request, promptTokens, measure, slot, this.#work.halt);
      this.#summary.asked++;
      const usage = measure(value);
      for (const totals of [took, this.#summary.usage]) addUsage(totals, usage, costOf(usage, this.#endpoint.prices));
      return value.finish === "stop" ? normalise(value.text) : undefined;
    } catch (error) {
      if (!(error instanceof AttemptsError) || error.failure.kind !== "refused") throw error;
      this.#summary.asked++;
      return undefined;
    }
  }
}

function wantedTexts({ keys, perKey, tweaks = TWEAKS }: WriteTextPoolOptions, kept: readonly PoolEntry[]): Wanted[] {
  const tweaksOf = new Map<string, string[]>();
  for (const { key, tweak } of kept) {
    const have = tweaksOf.get(keyName(key));
    if (have === undefined) tweaksOf.set(keyName(key), [tweak]);
    else have.push(tweak);
  }
  return keys.flatMap((key) => {
    const have = tweaksOf.get(keyName(key)) ?? [];
    return rarestFirst(tweaks, have, perKey - have.length).map((tweak) => ({ key, tweak }));
  });
}

/** So many tweaks that, with those there are, none is taken again before all others are. */
function rarestFirst(tweaks: readonly string[], have: readonly string[], count: number): string[] {
  const times = new Map<string, number>();
  for (const tweak of have) times.set(tweak, (times.get(tweak) ?? 0) + 1);
  const taken: string[] = [];
  for (let round = 0; taken.length < count; round++) {
    taken.push(...tweaks.filter((tweak) => (times.get(tweak) ?? 0) <= round));
  }
  return taken.slice(0, Math.max(0, count));
}

/** Usage of a reply whose endpoint tells none, at four bytes a token. */
function measured(content: string, { text, reasoning = "" }: GenResult): Usage {
  const tokens = (written: string) => Math.ceil(utf8Length(written) / 4);
  return { promptTokens: tokens(content), completionTokens: tokens(`${reasoning}${text}`) };
}

function addTotals(totals: UsageTotals, more: UsageTotals): void {
  for (const name of Object.keys(totals) as (keyof UsageTotals)[]) totals[name] += more[name];
}

/** What a file holds that is gone on with. */
interface Kept {
  entries: PoolEntry[];
  /** What all its lines took. */
  usage: UsageTotals;
  dropped: number;
}

/**
 * The valid entries of the file. The others are moved to `${path}.dropped` and leave a line of what they took; a torn last line is taken out.
 *
 * @throws {FormatError} if another line is none of a pool; nothing is changed then
 */
async function keepValid(path: string, rules: PoolRules): Promise<Kept> {
  const kept: Kept = { entries: [], usage: noUsage(), dropped: 0 };
  if (!existsSync(path)) return kept;
  const whole = await endsInNewline(path);
  const lines: string[] = [];
  const dropped: string[] = [];
  let number = 0;
  let torn: number | undefined;
  for await (const line of fileLines(path)) {
    number++;
    if (torn !== undefined) throw noPool(path, torn);
    if (line === "") continue;
    const parsed = parsePoolLine(line);
    if (parsed === undefined) {
      if (whole || !mayBeTorn(line)) throw noPool(path, number);
      torn = number;
      continue;
    }
    if (parsed.took !== undefined) addTotals(kept.usage, parsed.took);
    if (!("text" in parsed)) lines.push(line);
    else if (rules.accept(parsed.key, parsed.text)) {
      kept.entries.push(parsed);
      lines.push(line);
    } else {
      dropped.push(line);
      if (parsed.took !== undefined) lines.push(JSON.stringify({ took: parsed.took } satisfies VainReplies));
    }
  }
  if (dropped.length > 0) await appendLines(`${path}.dropped`, dropped);
  if (dropped.length > 0 || !whole) await replaceLines(path, lines);
  return { ...kept, dropped: dropped.length };
}

/** Whether this may be the beginning of a line that `writeTextPool` wrote. Whole JSON never is, since the last bracket ends a line. */
function mayBeTorn(line: string): boolean {
  if (!['{"key":', '{"took":'].some((begin) => line.startsWith(begin) || begin.startsWith(line))) return false;
  try {
    JSON.parse(line);
    return false;
  } catch {
    return true;
  }
}

function noPool(path: string, line: number): FormatError {
  return new FormatError(
    `[writeTextPool] ${path} is no pool of texts: line ${line} holds no entry with key, tweak, text, model and date. It is left as it is; choose another file.`,
  );
}

async function appendLines(path: string, lines: readonly string[]): Promise<void> {
  const file = await AppendFile.open(path);
  try {
    file.append(Buffer.from(lines.map((line) => `${line}\n`).join("")));
  } finally {
    await file.close();
  }
}
