/** What a run leaves in its folder: results, the sums as JSON and CSV, and the report as a page. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  type Aggregate,
  type AggregateOptions,
  aggregate,
  chooseFailures,
  evaluationReport,
  failureExcerpt,
  type ResultRecord,
  type ResultsHeader,
  readResults,
  readSamples,
  resultsCsv,
  resultsFile,
  type Sample,
} from "@llmeff/longcontext";
import { writeFileAtomic, writeReport } from "@llmeff/report";
import { formatJson } from "../config/format-json.js";
import { UsageError } from "../errors.js";
import { version } from "../version.js";

export const samplesFile = "samples.jsonl";
export const reportFile = "report.html";

export interface Results {
  header: ResultsHeader;
  records: ResultRecord[];
}

/** The results of one folder or of several, as one. */
export async function resultsOf(folders: readonly string[]): Promise<Results> {
  const records: ResultRecord[] = [];
  let header: ResultsHeader | undefined;
  for (const folder of folders) {
    const read = await readResults(join(folder, resultsFile), (record) => records.push(record));
    header ??= read.header;
    Object.assign(header.config.models, { ...read.header.config.models, ...header.config.models });
  }
  if (header === undefined) throw new UsageError("[eval] expected at least one folder of a run.");
  return { header, records };
}

export interface ReportFiles {
  html: string;
  json: string;
  csv: string;
}

/** Writes `report.html`, `report.json` and `report.csv` beside each other. */
export async function writeReportFiles(
  { header, records }: Results,
  folders: readonly string[],
  html: string,
  options: AggregateOptions,
): Promise<{ files: ReportFiles; sums: Aggregate }> {
  const base = html.replace(/\.html?$/i, "");
  const files = { html, json: `${base}.json`, csv: `${base}.csv` };
  const sums = aggregate(records, { ...options, models: Object.keys(header.config.models) });
  const chosen = chooseFailures(records);
  const samples = await samplesWith(new Set(chosen.map(({ id }) => id)), folders);
  const failures = chosen.map((record) => failureExcerpt(record, samples.get(record.id)));
  const footer = `llmeff ${version()}`;
  await writeReport(html, evaluationReport({ ...options, header, records, failures, footer }));
  await writeFileAtomic(files.json, formatJson({ header, ...sums }));
  await writeFileAtomic(files.csv, resultsCsv(records));
  return { files, sums };
}

/** Only those asked for: a set may be larger than memory. */
async function samplesWith(ids: ReadonlySet<string>, folders: readonly string[]): Promise<Map<string, Sample>> {
  const found = new Map<string, Sample>();
  for (const path of folders.map((folder) => join(folder, samplesFile)).filter((file) => existsSync(file))) {
    for await (const sample of readSamples(path)) {
      if (ids.has(sample.id)) found.set(sample.id, sample);
      if (found.size === ids.size) return found;
    }
  }
  return found;
}
