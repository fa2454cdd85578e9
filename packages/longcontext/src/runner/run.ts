/** Samples in, results out: resumable, within limits, and nothing asked twice. */
import { OptionError } from "@llmeff/native/errors";
import { type EvalModel, type GenRequest, type GenResult, ModelError, type Usage } from "../models/eval-model.js";
import type { Sample } from "../sample.js";
import { utf8Bytes } from "../tokens/tokenizer.js";
import { Endpoint, type EndpointOptions } from "./ask.js";
import { type Clock, systemClock } from "./clock.js";
import type { Slot } from "./concurrency.js";
import { addUsage, costOf, noUsage, SpendingGuard, type SpendingLimits, type UsageTotals } from "./cost.js";
import { promptSha256, requestKey } from "./identity.js";
import { lockFolder } from "./lock.js";
import type { ResponseCache } from "./response-cache.js";
import { factsOf, type ResultRecord, recordId, type Score, type Status } from "./result.js";
import { ResultsFile } from "./results-file.js";
import { AttemptsError } from "./retry.js";
import { type Stopped, Work } from "./work.js";

export interface RunModel extends EndpointOptions {
  model: EvalModel;
}

/** @param kind - of the model: what a base model goes on with after its answer is no part of it */
export type Scorer = (sample: Sample, text: string, kind: EvalModel["kind"]) => Score | Promise<Score>;

export interface RunOptions {
  /** Where results, lock and quarantine lie; made if it is missing. */
  folder: string;
  models: readonly RunModel[];
  /** Gives the samples anew to every model; one is held in memory for each request under way. */
  samples: () => Iterable<Sample> | AsyncIterable<Sample>;
  score: Scorer;
  /** Settings that results in one folder must share: which samples, which budgets, tools on or off. */
  config?: Readonly<Record<string, unknown>>;
  /** Repeats of every sample; default 1. */
  trials?: number;
  /** Default 0; null leaves it to the model. */
  temperature?: number | null;
  seed?: number;
  /** Replies by request; default none. */
  cache?: ResponseCache;
  spending?: SpendingLimits;
  /** Samples of each model at the most, those with a result included. */
  limit?: number;
  /** Ask again where the last result is an error. */
  retryErrors?: boolean;
  /** Ask again where the last result is an error, and nothing else. */
  onlyFailed?: boolean;
  /** So many errors without a reply between them end the run: the endpoint is down. Default 5. */
  giveUpAfter?: number;
  /** Ends the run when the requests under way are answered. */
  signal?: AbortSignal;
  clock?: Clock;
  onResult?: (record: ResultRecord, summary: Readonly<RunSummary>) => void;
}

export interface RunSummary {
  /** Results that were there before. */
  skipped: number;
  /** Results written now. */
  written: number;
  /** Of those, the ones whose reply lay in the cache. */
  fromCache: number;
  /** All results by status, old ones included. */
  statuses: Record<Status, number>;
  /** What this folder's replies took, old ones included. */
  usage: UsageTotals;
  /** Lines of the results file that could not be read. */
  quarantined: number;
  /** Why the run ended before the last sample. */
  stopped?: Stopped;
}

/**
 * Asks every model every sample that has no result in the folder yet.
 *
 * Statuses, and what is tried again: see `ModelError`. A reply goes into the cache, then into the results, so that a process killed at any
 * moment asks again only what was under way.
 *
 * @throws {LockedError} if another run works in the folder
 * @throws {OptionError} if the folder's results were made with other settings
 * @throws {ModelError} of the kind `stop`, or the last of `giveUpAfter` errors; what was answered till then is kept
 *
 * @example
 * await runEvaluation({ folder: "runs/eval", models: [{ model }], samples: () => readSamples("samples.jsonl"), score });
 */
export async function runEvaluation(options: RunOptions): Promise<RunSummary> {
  const { models, trials = 1, limit = Number.POSITIVE_INFINITY, giveUpAfter = 5 } = options;
  if (!Number.isSafeInteger(trials) || trials < 1) {
    throw new OptionError(`[run] trials must be a positive integer; received ${trials}.`);
  }
  if (!(limit > 0)) throw new OptionError(`[run] limit must be a positive integer; received ${limit}.`);
  if (!Number.isSafeInteger(giveUpAfter) || giveUpAfter < 1) {
    throw new OptionError(`[run] giveUpAfter must be a positive integer; received ${giveUpAfter}.`);
  }
  const ids = models.map(({ model }) => model.id);
  if (ids.length === 0 || new Set(ids).size !== ids.length) {
    throw new OptionError(`[run] expected models with different ids; received [${ids.join(", ")}].`);
  }
  await using _lock = await lockFolder(options.folder);
  const run = await Run.open(options);
  try {
    return await run.evaluate();
  } finally {
    await run.close();
  }
}

class Run {
  readonly #summary: RunSummary;
  readonly #options: RunOptions;
  readonly #results: ResultsFile;
  /** Status of every result there is, by `recordId`. */
  readonly #statuses: Map<string, Status>;
  readonly #work: Work;

  private constructor(options: RunOptions, results: ResultsFile, statuses: Map<string, Status>, usage: UsageTotals) {
    this.#options = options;
    this.#results = results;
    this.#statuses = statuses;
    const counts = { ok: 0, truncated: 0, refused: 0, context_exceeded: 0, error: 0 };
    for (const status of statuses.values()) counts[status]++;
    this.#summary = { skipped: 0, written: 0, fromCache: 0, statuses: counts, usage, quarantined: results.quarantined };
    this.#work = new Work(this.#summary, options.signal);
  }

  static async open(options: RunOptions): Promise<Run> {
    const { temperature = 0, seed } = options;
    const models = Object.fromEntries(
      options.models.map(({ model }) => [model.id, { kind: model.kind, ...model.fingerprint }]),
    );
    const config = { ...options.config, temperature, ...(seed === undefined ? {} : { seed }), models };
    const statuses = new Map<string, Status>();
    const usage = noUsage();
    const results = await ResultsFile.open(options.folder, config, (record) => {
      statuses.set(recordId(record), record.status);
      if (record.usage !== undefined && !record.cached) addUsage(usage, record.usage, record.cost ?? 0);
    });
    return new Run(options, results, statuses, usage);
  }

  close(): Promise<void> {
    return this.#results.close();
  }

  async evaluate(): Promise<RunSummary> {
    const { models, spending = {}, clock = systemClock } = this.#options;
    const guard = new SpendingGuard(spending, this.#summary.usage);
    const endpoints = models.map((entry) => new Endpoint(entry.model, entry, guard, clock));
    await Promise.all(endpoints.map((endpoint) => this.#ask(endpoint)));
    this.#work.end();
    return this.#summary;
  }

  async #ask(endpoint: Endpoint): Promise<void> {
    const errors = new HeldErrors(this.#options.giveUpAfter ?? 5);
    await this.#work.each(this.#wanted(endpoint.model.id), endpoint.concurrency, ({ sample, trial }, slot) =>
      this.#one(endpoint, sample, trial, slot, errors),
    );
    for (const record of errors.take()) this.#write(record);
  }

  async *#wanted(model: string): AsyncGenerator<{ sample: Sample; trial: number }> {
    const { trials = 1, limit = Number.POSITIVE_INFINITY, retryErrors = false, onlyFailed = false } = this.#options;
    let count = 0;
    for await (const sample of this.#options.samples()) {
      if (++count > limit) return;
      for (let trial = 0; trial < trials; trial++) {
        const status = this.#statuses.get(recordId({ model, id: sample.id, trial }));
        const failed = status === "error";
        if (failed ? retryErrors || onlyFailed : status === undefined && !onlyFailed) yield { sample, trial };
        else if (status !== undefined) this.#summary.skipped++;
        if (this.#work.halt.aborted) return;
      }
    }
  }

  async #one(endpoint: Endpoint, sample: Sample, trial: number, slot: Slot, errors: HeldErrors): Promise<void> {
    const { model } = endpoint;
    const { temperature = 0, seed, cache } = this.#options;
    const facts = factsOf(sample, promptSha256(sample.messages));
    const sampling = {
      maxTokens: sample.budget.reserve,
      ...(temperature === null ? {} : { temperature }),
      ...(seed === undefined ? {} : { seed: seed + trial }),
    };
    const { fingerprint } = model;
    const key = requestKey({ model: model.id, fingerprint, promptSha256: facts.promptSha256, ...sampling, trial });
    const base = { ...facts, key, model: model.id, trial, text: "", attempts: 0 };
    if (tooLong(model, sample)) {
      const error = `prompt and answer take ${sample.budget.maxTokens} tokens; the model's context has ${model.contextWindow}`;
      this.#write({ ...base, status: "context_exceeded", error, at: now() });
      return;
    }
    const kept = await cache?.get(key);
    const measure = (result: GenResult) => result.usage ?? this.#measured(endpoint, sample, result);
    try {
      let attempts = kept?.attempts ?? 0;
      let result = kept?.result;
      if (result === undefined) {
        const request: GenRequest = { messages: sample.messages, ...sampling, idempotencyKey: key, sample };
        const asked = await endpoint.ask(request, sample.budget.promptTokens, measure, slot, this.#work.halt);
        result = asked.value;
        attempts = asked.attempts;
        await cache?.put(key, { result, attempts, runId: this.#results.header.runId });
      } else this.#summary.fromCache++;
      const foreign = kept !== undefined && kept.runId !== this.#results.header.runId;
      const usage = measure(result);
      const record = await this.#scored(sample, result, model.kind);
      // An answer shows that the endpoint works: the errors before it are the samples' own.
      for (const held of errors.take()) this.#write(held);
      this.#write({
        ...base,
        ...record,
        usage,
        ...(result.usage === undefined ? { usageEstimated: true as const } : {}),
        cost: costOf(usage, endpoint.prices),
        ...(foreign ? { cached: true as const } : {}),
        attempts,
        at: now(),
      });
    } catch (error) {
      if (!(error instanceof AttemptsError)) throw error;
      const { failure, attempts } = error;
      if (failure.kind === "stop") throw failure;
      const status = statusOf(failure);
      const record = { ...base, status, error: failure.message, attempts, at: now() };
      if (status !== "error") this.#write({ ...record, ...(status === "refused" ? { score: 0 } : {}) });
      else if (errors.hold(record)) throw gaveUp(model.id, errors.count, failure);
    }
  }

  async #scored(sample: Sample, { text, finish, ttftMs, totalMs }: GenResult, kind: EvalModel["kind"]) {
    const status: Status = finish === "filter" ? "refused" : finish === "length" ? "truncated" : "ok";
    const score = status === "refused" ? { score: 0 } : await this.#options.score(sample, text, kind);
    const times = { ...(ttftMs === undefined ? {} : { ttftMs: Math.round(ttftMs) }), totalMs: Math.round(totalMs) };
    return { status, text, finish, ...times, ...score };
  }

  /** Usage of a reply whose endpoint tells none, as our tokenizers count. */
  #measured({ model }: Endpoint, sample: Sample, { text, reasoning = "" }: GenResult): Usage {
    const written = `${reasoning}${text}`;
    const completionTokens = model.tokenizer?.count(written) ?? Math.ceil(Buffer.byteLength(written) / 4);
    return { promptTokens: sample.budget.promptTokens, completionTokens };
  }

  #write(record: ResultRecord): void {
    const id = recordId(record);
    const before = this.#statuses.get(id);
    const { statuses, usage } = this.#summary;
    if (before !== undefined) statuses[before]--;
    statuses[record.status]++;
    this.#statuses.set(id, record.status);
    if (record.usage !== undefined && !record.cached) addUsage(usage, record.usage, record.cost ?? 0);
    this.#results.append(record);
    this.#summary.written++;
    this.#options.onResult?.(record, this.#summary);
  }
}

/**
 * Errors that may be the endpoint's, not the samples': they are results only once a later reply shows that the endpoint works, or the run
 * comes to its end. A run that gives up leaves these samples without a result, so that the next one asks them.
 */
class HeldErrors {
  #records: ResultRecord[] = [];

  constructor(private readonly most: number) {}

  get count(): number {
    return this.#records.length;
  }

  /** @returns whether that is enough to give up */
  hold(record: ResultRecord): boolean {
    this.#records.push(record);
    return this.#records.length >= this.most;
  }

  /** The errors held; after giving up there are none to be written. */
  take(): ResultRecord[] {
    return this.#records.length >= this.most ? [] : this.#records.splice(0);
  }
}

/** Where lengths were counted as the model counts, or at least in its kind of tokens; otherwise the endpoint is to say it. */
function tooLong({ contextWindow, tokenizer }: EvalModel, { budget }: Sample): boolean {
  const comparable = tokenizer === undefined ? budget.tokenizer !== utf8Bytes.id : tokenizer.id === budget.tokenizer;
  return contextWindow !== undefined && comparable && budget.maxTokens > contextWindow;
}

function statusOf({ kind }: ModelError): Status {
  return kind === "contextExceeded" ? "context_exceeded" : kind === "refused" ? "refused" : "error";
}

function gaveUp(model: string, count: number, failure: ModelError): ModelError {
  return new ModelError(
    "stop",
    `[run] ${model}: ${count} requests in a row failed, the last with: ${failure.message} ` +
      "The results so far are kept; run the same command again when the endpoint works.",
    { cause: failure },
  );
}

function now(): string {
  return new Date().toISOString();
}
