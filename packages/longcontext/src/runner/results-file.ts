/** The results of a run: a header line, then a record a line, only ever appended to. */
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { appendFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { FormatError, OptionError } from "@llmeff/native/errors";
import { AppendFile } from "@llmeff/report";
import { endsInNewline, fileLines, replaceLines } from "../file-lines.js";
import type { EvalModel } from "../models/eval-model.js";
import { canonicalJson, sha256 } from "./identity.js";
import { isResultRecord, RESULTS_SCHEMA, type ResultRecord } from "./result.js";

export const resultsFile = "results.jsonl";
export const quarantineFile = "quarantine.jsonl";

/** What results of one file have in common; `models` holds kind and fingerprint of each. */
export interface RunConfig {
  models: Record<string, { kind?: EvalModel["kind"]; [field: string]: unknown }>;
  [setting: string]: unknown;
}

export interface ResultsHeader {
  schema: typeof RESULTS_SCHEMA;
  runId: string;
  /** Hash of the config without its models. */
  configHash: string;
  config: RunConfig;
  created: string;
}

export class ResultsFile {
  readonly path: string;
  readonly header: ResultsHeader;
  /** Lines that could not be read and lie in the quarantine file now. */
  readonly quarantined: number;
  readonly #file: AppendFile;

  private constructor(path: string, header: ResultsHeader, quarantined: number, file: AppendFile) {
    this.path = path;
    this.header = header;
    this.quarantined = quarantined;
    this.#file = file;
  }

  /**
   * Opens the results in a folder, or begins them. A last line without its end was being written when a run was killed, and is dropped.
   * Any other line that is no record goes to `quarantine.jsonl`; its sample has no result then and is asked again, or found in the cache.
   *
   * @param onRecord - told of every record there is, in order
   * @throws {OptionError} if the results were made with other settings
   */
  static async open(
    folder: string,
    config: RunConfig,
    onRecord: (record: ResultRecord) => void = () => {},
  ): Promise<ResultsFile> {
    const path = join(folder, resultsFile);
    const { header: found, bad, torn } = existsSync(path) ? await scan(path, onRecord) : nothing;
    const header = found ?? newHeader(config);
    if (found !== undefined) requireSameConfig(path, found, config);
    const added = Object.keys(config.models).some((id) => !(id in header.config.models));
    header.config.models = { ...config.models, ...header.config.models };
    if (found === undefined || added || bad.length > 0 || torn) await rewrite(path, header, bad);
    return new ResultsFile(path, header, bad.length, await AppendFile.open(path));
  }

  append(record: ResultRecord): void {
    this.#file.append(Buffer.from(`${JSON.stringify(record)}\n`));
  }

  /** Waits until all is on the disk. */
  flush(): Promise<void> {
    return this.#file.flush();
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/**
 * The records of a results file, in order; of a sample that was asked again the last counts. Lines that can't be read are passed over.
 *
 * @throws {IoError} if there is no such file; {@link FormatError} if it holds no results
 */
export async function readResults(
  path: string,
  onRecord: (record: ResultRecord) => void,
): Promise<{ header: ResultsHeader; unreadable: number }> {
  const { header, bad } = await scan(path, onRecord);
  if (header === undefined) throw new FormatError(`[results] ${path} is empty. Run an evaluation first.`);
  return { header, unreadable: bad.length };
}

const nothing: Scan = { header: undefined, bad: [], torn: false };

/**
 * Writes results that were made elsewhere into a folder of their own, as if they were a run's.
 *
 * @throws {OptionError} if the folder holds results already
 */
export async function writeResults(folder: string, config: RunConfig, records: Iterable<ResultRecord>): Promise<void> {
  const path = join(folder, resultsFile);
  if (existsSync(path)) throw new OptionError(`[results] ${folder} holds results already. Choose another folder.`);
  function* lines() {
    yield JSON.stringify(newHeader(config));
    for (const record of records) yield JSON.stringify(record);
  }
  await replaceLines(path, lines());
}

interface BadLine {
  line: number;
  text: string;
}

interface Scan {
  header: ResultsHeader | undefined;
  bad: BadLine[];
  torn: boolean;
}

async function scan(path: string, onRecord: (record: ResultRecord) => void): Promise<Scan> {
  const result: Scan = { header: undefined, bad: [], torn: !(await endsInNewline(path)) };
  let line = 0;
  let last: BadLine | undefined;
  for await (const text of fileLines(path)) {
    line++;
    if (last !== undefined) result.bad.push(last);
    last = undefined;
    const value = parsed(text);
    if (line === 1 && isHeader(value)) result.header = value;
    else if (line > 1 && isResultRecord(value)) onRecord(value);
    else if (text !== "") last = { line, text };
  }
  if (last !== undefined && !result.torn) result.bad.push(last);
  if (result.header === undefined && (line > 1 || !result.torn) && line > 0) {
    throw new FormatError(
      `[results] ${path} doesn't begin with a header of "${RESULTS_SCHEMA}". Is it another kind of file?`,
    );
  }
  return result;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isHeader(value: unknown): value is ResultsHeader {
  const header = value as ResultsHeader | null | undefined;
  return header?.schema === RESULTS_SCHEMA && typeof header.config?.models === "object";
}

function newHeader(config: RunConfig): ResultsHeader {
  return {
    schema: RESULTS_SCHEMA,
    runId: randomUUID(),
    configHash: configHash(config),
    config: { ...config, models: { ...config.models } },
    created: new Date().toISOString(),
  };
}

function configHash({ models: _, ...settings }: RunConfig): string {
  return sha256(canonicalJson(settings));
}

function requireSameConfig(path: string, { config: old, configHash: oldHash }: ResultsHeader, config: RunConfig): void {
  const { models: oldModels, ...oldSettings } = old;
  const { models, ...settings } = config;
  const changed = Object.keys({ ...oldSettings, ...settings }).filter(
    (name) => canonicalJson(oldSettings[name]) !== canonicalJson(settings[name]),
  );
  const changedModels = Object.keys(models).filter(
    (id) => id in oldModels && canonicalJson(oldModels[id]) !== canonicalJson(models[id]),
  );
  if (oldHash === configHash(config) && changedModels.length === 0) return;
  const what = [
    ...changed.map((name) => `${name}: ${short(oldSettings[name])} there, ${short(settings[name])} now`),
    ...changedModels.map((id) => `model ${id}: ${short(oldModels[id])} there, ${short(models[id])} now`),
  ];
  throw new OptionError(
    `[run] ${path} holds results made with other settings (${what.join("; ")}). Use another folder, or the same settings.`,
  );
}

function short(value: unknown): string {
  const text = canonicalJson(value);
  return text.length > 120 ? `${text.slice(0, 120)}…` : text;
}

/** Writes the file again without its bad lines, which are kept in the quarantine. */
async function rewrite(path: string, header: ResultsHeader, bad: readonly BadLine[]): Promise<void> {
  if (bad.length > 0) {
    const lines = bad.map((entry) => `${JSON.stringify({ at: new Date().toISOString(), ...entry })}\n`);
    await appendFile(join(dirname(path), quarantineFile), lines.join(""));
  }
  async function* kept() {
    yield JSON.stringify(header);
    if (!existsSync(path)) return;
    let line = 0;
    for await (const text of fileLines(path)) if (++line > 1 && isResultRecord(parsed(text))) yield text;
  }
  await replaceLines(path, kept());
}
