/** `llmeff eval nll`: likelihood against position, of models in this process. */
import { mkdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { readText, streamJsonl, streamParquet } from "@llmeff/data";
import { type NllPositions, nllPosition, nllReport, tokensLabel } from "@llmeff/longcontext";
import { type Cell, createProgress, formatNumber, renderTextTable, writeFileAtomic, writeReport } from "@llmeff/report";
import type { DeviceChoice } from "@llmeff/tensor";
import { formatJson } from "../config/format-json.js";
import { exitCodes, UsageError } from "../errors.js";
import { interruptible } from "../interrupt.js";
import { type Io, print } from "../io.js";
import { version } from "../version.js";
import { openModel } from "./open-model.js";

export interface NllCommandOptions {
  model: string[];
  out: string;
  tokens?: number;
  limit?: number;
  split?: string;
  field: string;
  positions?: number[];
  device?: DeviceChoice;
  json?: boolean;
}

/** @returns the exit code */
export async function nllCommand(io: Io, files: readonly string[], options: NllCommandOptions): Promise<number> {
  const { model: words, json = false } = options;
  if (words.length === 0) throw new UsageError("[eval nll] name a model with --model, such as local:runs/shakespeare.");
  const foreign = words.find((one) => !one.startsWith("local:"));
  if (foreign !== undefined) {
    throw new UsageError(
      `[eval nll] ${foreign} isn't a model of this process, and endpoints give no log-probabilities of prompts. Name one as local:FOLDER.`,
    );
  }
  return interruptible(io, async (signal) => {
    let total = 0;
    for await (const _ of documents(io, files, options, signal)) total++;
    if (total === 0) throw new UsageError(`[eval nll] there is no document in ${files.join(", ")}.`);
    const results: NllPositions[] = [];
    for (const one of words) results.push(await measured(io, one, files, options, total, signal));
    const written = await write(io, files, options, results);
    if (json) print(io, JSON.stringify({ files: written, results }));
    else print(io, `${table(io, results)}\nreport: ${written.html}`);
    return exitCodes.ok;
  });
}

async function measured(
  io: Io,
  words: string,
  files: readonly string[],
  options: NllCommandOptions,
  total: number,
  signal: AbortSignal,
): Promise<NllPositions> {
  const { model } = await openModel(io, words, options);
  const { tokens = model.documentWindow ?? model.contextWindow, positions } = options;
  const progress = createProgress({ stream: io.stderr, total, label: model.id, env: io.env });
  try {
    return await nllPosition(model, documents(io, files, options, signal), {
      signal,
      ...(tokens === undefined ? {} : { maxTokens: tokens }),
      ...(positions === undefined ? {} : { positions }),
      onDocument: ({ documents, tokens }) => progress.update(documents, { tokens }),
    });
  } finally {
    progress.finish();
    await model.close?.();
  }
}

async function* documents(
  io: Io,
  files: readonly string[],
  { limit = Number.POSITIVE_INFINITY, field, split }: NllCommandOptions,
  signal: AbortSignal,
): AsyncGenerator<string> {
  let left = limit;
  for (const file of files) {
    for await (const text of textsOf(resolve(io.cwd, file), {
      field,
      signal,
      ...(split === undefined ? {} : { split }),
    })) {
      if (left-- <= 0) return;
      yield text;
    }
  }
}

async function* textsOf(
  path: string,
  options: { field: string; split?: string; signal: AbortSignal },
): AsyncGenerator<string> {
  if (/\.jsonl(?:\.gz)?$/.test(path)) for await (const { text } of streamJsonl(path, options)) yield text;
  else if (path.endsWith(".parquet")) for await (const { text } of streamParquet(path, options)) yield text;
  else yield await readText(path, { signal: options.signal });
}

async function write(
  io: Io,
  files: readonly string[],
  { out, tokens, limit, split }: NllCommandOptions,
  results: readonly NllPositions[],
): Promise<{ html: string; json: string }> {
  const folder = resolve(io.cwd, out);
  const written = { html: join(folder, "nll.html"), json: join(folder, "nll.json") };
  const facts = [
    { name: "Files", value: files.map((file) => basename(file)).join(", ") },
    ...(split === undefined ? [] : [{ name: "Split", value: split }]),
    ...(limit === undefined ? [] : [{ name: "Documents at the most", value: limit }]),
    { name: "Tokens of a document at the most", value: tokens ?? "what the model takes" },
    ...results.map(({ model, documents, tokens }) => ({
      name: model,
      value: `${formatNumber(documents)} documents, ${formatNumber(tokens)} tokens`,
    })),
  ];
  await mkdir(folder, { recursive: true });
  const date = new Date().toISOString().slice(0, 10);
  await writeReport(written.html, nllReport({ results, facts, date, footer: `llmeff ${version()}` }));
  await writeFileAtomic(written.json, formatJson({ files, tokens: tokens ?? null, results }));
  return written;
}

function table(io: Io, results: readonly NllPositions[]): string {
  const rows = results.flatMap(({ model, points, fit }): Cell[][] => {
    const known = points.filter(({ mean }) => mean !== null);
    const law = fit === null ? null : `${fit.alpha.toPrecision(3)}·x^${fit.beta.toFixed(3)} + ${fit.gamma.toFixed(3)}`;
    return known.map(({ position, mean, documents }, i) => [
      i === 0 ? model : null,
      tokensLabel(position),
      mean!.toFixed(4),
      documents,
      i === 0 ? law : null,
      i === 0 ? (fit?.r2?.toFixed(4) ?? null) : null,
    ]);
  });
  const headers = ["Model", "Up to", "Nats/token", "Documents", "Power law", "R²"];
  return renderTextTable({ columns: headers.map((header) => ({ header })), rows }, { width: io.stdout.columns ?? 120 });
}
