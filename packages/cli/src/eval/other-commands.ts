/** The commands of `llmeff eval` that ask no model: generate, score, report, compare, import, check. */
import { join, resolve } from "node:path";
import {
  aggregate,
  checkSample,
  lmEvalRecords,
  mrcrCsvSamples,
  needleRecords,
  openAiMrcrSamples,
  type ResultRecord,
  readSamples,
  rescore,
  rulerSamples,
  type Sample,
  scoreSample,
  writeResults,
  writeSet,
} from "@llmeff/longcontext";
import { type Cell, formatCompact, renderTextTable } from "@llmeff/report";
import { exitCodes, UsageError } from "../errors.js";
import { type Io, note, print } from "../io.js";
import type { Threshold } from "./options.js";
import { reportFile, resultsOf, samplesFile, writeReportFiles } from "./run-folder.js";
import { generatedSet, type SetOptions, tokensFor } from "./sample-source.js";
import { outcomeCode, printResults } from "./show-results.js";

export interface OutputOptions {
  json?: boolean;
}

export async function generateSetCommand(
  io: Io,
  options: SetOptions & OutputOptions & { out: string },
): Promise<number> {
  const path = resolve(io.cwd, options.out);
  const tokens = await tokensFor(io, options.tokenizer, undefined, "");
  const { summary } = await generatedSet(io, path, options, tokens);
  if (options.json) print(io, JSON.stringify({ path, ...summary }));
  else
    print(
      io,
      `${summary.samples} samples, ${formatCompact(summary.promptTokens)} ${tokens.tokenizer.id} tokens: ${path}`,
    );
  return exitCodes.ok;
}

export async function scoreCommand(io: Io, folder: string, options: OutputOptions & { set?: string }): Promise<number> {
  const path = resolve(io.cwd, folder);
  const set = options.set === undefined ? join(path, samplesFile) : resolve(io.cwd, options.set);
  const summary = await rescore(path, readSamples(set), scoreSample);
  if (options.json) print(io, JSON.stringify(summary));
  else print(io, `${summary.scored} replies scored, ${summary.changed} with another score than before.`);
  if (summary.unknown > 0)
    note(io, `[eval] ${summary.unknown} replies are to samples that ${set} doesn't hold; their scores stay.`);
  return summary.unknown > 0 ? exitCodes.incomplete : exitCodes.ok;
}

export interface ReportCommandOptions extends OutputOptions {
  out?: string;
  errors: "exclude" | "zero";
  threshold: number;
  failUnder?: Threshold[];
}

export async function reportCommand(
  io: Io,
  folders: readonly string[],
  options: ReportCommandOptions,
): Promise<number> {
  const paths = folders.map((folder) => resolve(io.cwd, folder));
  const html = options.out === undefined ? join(paths[0]!, reportFile) : resolve(io.cwd, options.out);
  const { errors, threshold } = options;
  const { files, sums } = await writeReportFiles(await resultsOf(paths), paths, html, { errors, threshold });
  if (options.json) print(io, JSON.stringify({ files, ...sums }));
  else {
    printResults(io, sums);
    print(io, `\nreport: ${files.html}`);
  }
  return outcomeCode(io, sums, options.failUnder ?? [], true);
}

export async function compareCommand(io: Io, folders: readonly string[], options: OutputOptions): Promise<number> {
  const { header, records } = await resultsOf(folders.map((folder) => resolve(io.cwd, folder)));
  const { comparisons, models } = aggregate(records, { models: Object.keys(header.config.models) });
  if (models.length < 2) {
    throw new UsageError(
      `[eval] there is nothing to compare: all results are of ${models.join() || "no model"}. Name folders of several models.`,
    );
  }
  if (options.json) print(io, JSON.stringify(comparisons));
  else {
    const share = (value: number | null) => (value === null ? null : `${(100 * value).toFixed(1)} %`);
    const rows = comparisons.map(({ task, a, b, n, difference, low, high, pValue }): Cell[] => [
      task,
      `${a} - ${b}`,
      n,
      share(difference),
      share(low),
      share(high),
      pValue.toPrecision(2),
    ]);
    const headers = ["Task", "Models", "Pairs", "Difference", "low", "high", "p"];
    print(
      io,
      renderTextTable({ columns: headers.map((header) => ({ header })), rows }, { width: io.stdout.columns ?? 120 }),
    );
  }
  return exitCodes.ok;
}

export const importFormats = ["ruler", "openai-mrcr", "mrcr-csv", "lm-eval", "niah"] as const;
export type ImportFormat = (typeof importFormats)[number];

export interface ImportCommandOptions extends OutputOptions {
  out: string;
  task?: string;
  model?: string;
  columns?: string[];
}

/** Sets become a file of samples for `run --set`, results a folder for `report` and `compare`. */
export async function importCommand(
  io: Io,
  format: ImportFormat,
  file: string,
  options: ImportCommandOptions,
): Promise<number> {
  const path = resolve(io.cwd, file);
  const out = resolve(io.cwd, options.out);
  const told =
    format === "lm-eval" || format === "niah"
      ? await importResults(format, path, out, needed(options.model, "--model NAME, which these results are of"))
      : await importSamples(format, path, out, options);
  if (options.json) print(io, JSON.stringify({ out, ...told }));
  else print(io, `${Object.values(told)[0]} ${Object.keys(told)[0]}: ${out}`);
  return exitCodes.ok;
}

async function importSamples(
  format: Exclude<ImportFormat, "lm-eval" | "niah">,
  path: string,
  out: string,
  options: ImportCommandOptions,
) {
  const open = {
    ruler: () =>
      rulerSamples(path, needed(options.task, "--task with RULER's name of the task, such as niah_multikey_2")),
    "openai-mrcr": () => openAiMrcrSamples(path),
    "mrcr-csv": () => {
      const [prompt, answer, hash] = options.columns ?? [];
      if (hash === undefined) throw new UsageError("[eval] this format needs --columns PROMPT,ANSWER,HASH.");
      return mrcrCsvSamples(path, { prompt: prompt!, answer: answer!, hash });
    },
  } satisfies Record<string, () => AsyncIterable<Sample>>;
  const { samples } = await writeSet(out, open[format](), { format, file: path });
  return { samples };
}

async function importResults(format: "lm-eval" | "niah", path: string, out: string, model: string) {
  const records: ResultRecord[] = [];
  for await (const record of format === "niah" ? await needleRecords(path, model) : lmEvalRecords(path, model)) {
    records.push(record);
  }
  await writeResults(out, { imported: format, file: path, models: { [model]: { imported: format } } }, records);
  return { results: records.length };
}

function needed(value: string | undefined, what: string): string {
  if (value === undefined) throw new UsageError(`[eval] this format needs ${what}.`);
  return value;
}

/** Solves every sample again from its prompt alone. */
export async function checkCommand(io: Io, file: string, options: OutputOptions): Promise<number> {
  const path = resolve(io.cwd, file);
  let samples = 0;
  const wrong: { id: string; problems: string[] }[] = [];
  for await (const sample of readSamples(path)) {
    samples++;
    const { ok, problems } = checkSample(sample);
    if (ok) continue;
    wrong.push({ id: sample.id, problems });
    if (!options.json) note(io, `${sample.id}: ${problems.join("; ")}`);
  }
  if (options.json) print(io, JSON.stringify({ samples, wrong }));
  else print(io, `${samples - wrong.length} of ${samples} samples are right.`);
  return wrong.length > 0 ? exitCodes.failure : exitCodes.ok;
}
