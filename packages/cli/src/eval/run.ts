/** `llmeff eval run` and `llmeff eval estimate` */
import { join, resolve } from "node:path";
import {
  type Aggregate,
  type Estimate,
  estimate,
  folderCache,
  type Prices,
  type RunSummary,
  readSamples,
  runEvaluation,
  scoreSample,
} from "@llmeff/longcontext";
import { createProgress, formatCompact, type Progress } from "@llmeff/report";
import { exitCodes, InterruptedError, UsageError } from "../errors.js";
import { interruptible } from "../interrupt.js";
import { type Io, note, print } from "../io.js";
import { type AskingOptions, describeEstimate, endpointOf, spendingOf } from "./asking.js";
import { type OpenedModel, openModel } from "./open-model.js";
import type { Threshold } from "./options.js";
import { reportFile, resultsOf, samplesFile, writeReportFiles } from "./run-folder.js";
import { countedSet, generatedSet, givenSet, type SampleFile, type SetOptions, tokensFor } from "./sample-source.js";
import { outcomeCode, printResults } from "./show-results.js";

export interface RunCommandOptions extends SetOptions, AskingOptions {
  model: string[];
  set?: string;
  out: string;
  trials: number;
  /** Null leaves it to the model. */
  temperature: number | null;
  limit?: number;
  cache?: string | boolean;
  retryErrors?: boolean;
  onlyFailed?: boolean;
  errors: "exclude" | "zero";
  tools: "off" | "on";
  failUnder?: Threshold[];
  json?: boolean;
}

interface Prepared {
  folder: string;
  models: OpenedModel[];
  samples: SampleFile;
  expected: Estimate;
}

/** @returns the exit code */
export async function runCommand(io: Io, options: RunCommandOptions): Promise<number> {
  return interruptible(io, async (signal) => {
    const prepared = await prepare(io, options, signal);
    const { folder, models, samples, expected } = prepared;
    try {
      note(io, describeEstimate(expected));
      const summary = await ask(io, options, prepared, signal);
      const results = await resultsOf([folder]);
      const html = join(folder, reportFile);
      const { files, sums } = await writeReportFiles(results, [folder], html, { errors: options.errors });
      const complete = summary.stopped === undefined;
      if (options.json)
        print(io, JSON.stringify({ folder, samples: samples.summary.samples, summary, files, ...sums }));
      else {
        printResults(io, sums);
        print(io, `\n${describeSummary(summary)}\nreport: ${files.html}`);
      }
      if (summary.stopped === "interrupted") {
        throw new InterruptedError(
          "[eval] interrupted; what was answered is kept. Start the same command again to go on.",
        );
      }
      if (summary.stopped === "spending")
        note(io, "[eval] stopped by --max-cost or --max-tokens; raise them to go on.");
      noteTokenizers(io, sums, samples.summary.origin.tokenizer);
      return outcomeCode(io, sums, options.failUnder ?? [], complete);
    } finally {
      await Promise.all(models.map(({ model }) => model.close?.()));
    }
  });
}

/**
 * What a run would ask for. Nothing is sent and nothing written; as an endpoint isn't asked how it counts, lengths are then taken as four bytes a
 * token.
 */
export async function estimateCommand(io: Io, options: RunCommandOptions): Promise<number> {
  const { set, tokenizer, price, json = false } = options;
  const summary =
    set === undefined
      ? await countedSet(io, options, await tokensFor(io, tokenizer === "auto" ? "bytes/4" : tokenizer, undefined, ""))
      : (await givenSet(resolve(io.cwd, set))).summary;
  const expected = estimate(summary, Math.max(1, options.model.length) * options.trials, price);
  print(io, json ? JSON.stringify(expected) : describeEstimate(expected));
  return exitCodes.ok;
}

async function prepare(io: Io, options: RunCommandOptions, signal: AbortSignal): Promise<Prepared> {
  const folder = resolve(io.cwd, options.out);
  if (options.model.length === 0)
    throw new UsageError("[eval] name a model with --model, such as http://127.0.0.1:8000/v1.");
  const models: OpenedModel[] = [];
  for (const words of options.model) models.push(await openModel(io, words, options));
  const samples = await sampleFile(io, options, models[0]!, folder, signal);
  return {
    folder,
    models,
    samples,
    expected: estimate(samples.summary, models.length * options.trials, options.price),
  };
}

async function sampleFile(
  io: Io,
  options: RunCommandOptions,
  first: OpenedModel,
  folder: string,
  signal: AbortSignal,
): Promise<SampleFile> {
  if (options.set !== undefined) return givenSet(resolve(io.cwd, options.set));
  const choice = options.tokenizer === "auto" && first.kind === "mock" ? "bytes/4" : options.tokenizer;
  const tokens = await tokensFor(io, choice, first.model, folder, signal);
  return generatedSet(io, join(folder, samplesFile), options, tokens);
}

async function ask(io: Io, options: RunCommandOptions, prepared: Prepared, signal: AbortSignal): Promise<RunSummary> {
  const { folder, models, samples, expected } = prepared;
  const { trials, temperature, seed, limit, retryErrors = false, onlyFailed = false, price, cache } = options;
  const total = Math.min(limit ?? Number.POSITIVE_INFINITY, samples.summary.samples) * trials * models.length;
  const progress = createProgress({ stream: io.stderr, total: Math.max(1, total), label: "eval", env: io.env });
  try {
    return await runEvaluation({
      folder,
      models: models.map((opened) => ({ model: opened.model, ...endpointOf(opened, options) })),
      samples: () => readSamples(samples.path),
      score: scoreSample,
      config: {
        samples: samples.summary.sha256,
        ...samples.summary.origin,
        tools: options.tools,
      },
      trials,
      temperature,
      seed,
      ...(limit === undefined ? {} : { limit }),
      ...(cache === false
        ? {}
        : { cache: folderCache(typeof cache === "string" ? resolve(io.cwd, cache) : join(folder, "cache")) }),
      spending: spendingOf(options),
      retryErrors,
      onlyFailed,
      signal,
      onResult: (_, summary) => showProgress(progress, summary, price, expected),
    });
  } finally {
    progress.finish();
  }
}

function showProgress(
  progress: Progress,
  summary: Readonly<RunSummary>,
  price: Prices | undefined,
  expected: Estimate,
): void {
  const { skipped, written, statuses, usage } = summary;
  const trouble = statuses.error + statuses.context_exceeded;
  const notes = [
    ...(trouble > 0 ? [`${trouble} not answered`] : []),
    ...(price === undefined ? [] : [`cost ${usage.cost.toFixed(4)} of at most ${expected.cost!.toFixed(4)}`]),
  ];
  progress.update(skipped + written, { tokens: usage.promptTokens + usage.completionTokens, note: notes.join(" · ") });
}

/** A tokenizer that isn't the model's makes prompts of other lengths than were asked for. */
function noteTokenizers(io: Io, { tokenRatios }: Aggregate, tokenizer: unknown): void {
  for (const [model, ratio] of Object.entries(tokenRatios)) {
    if (ratio === null || Math.abs(ratio - 1) <= 0.1) continue;
    note(
      io,
      `[eval] ${model} counts ${ratio.toFixed(2)} times the prompt tokens that ${String(tokenizer)} does, so prompts aren't as long as asked for. ` +
        "Curves are drawn by its own count; for lengths by it, take --tokenizer auto in another folder.",
    );
  }
}

function describeSummary({ skipped, written, fromCache, quarantined, usage }: RunSummary): string {
  const parts = [
    `${written} results${skipped > 0 ? `, ${skipped} there before` : ""}${fromCache > 0 ? `, ${fromCache} from the cache` : ""}`,
    `${formatCompact(usage.promptTokens)} prompt and ${formatCompact(usage.completionTokens)} completion tokens`,
    ...(usage.cost > 0 ? [`cost ${usage.cost.toFixed(4)}`] : []),
    ...(quarantined > 0 ? [`${quarantined} damaged lines put into quarantine`] : []),
  ];
  return parts.join("; ");
}
