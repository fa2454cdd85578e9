/**
 * Metrics as JSON lines: one object with an integer `step` a line. The file only grows; resuming drops the lines after
 * the checkpoint's step, so that an interrupted and resumed run leaves the file that an uninterrupted one leaves.
 */
import { readFile } from "node:fs/promises";
import { FormatError, OptionError } from "@llmeff/native/errors";
import { AppendFile, ioError, isMissing, writeFileAtomic } from "./files.js";

export type MetricValue =
  | number
  | string
  | boolean
  | null
  | readonly MetricValue[]
  | { readonly [name: string]: MetricValue };

/**
 * One line: what was measured at a step. The texts `"NaN"`, `"Infinity"` and `"-Infinity"` stand for those numbers in the file, and come back
 * as numbers also where they were written as texts.
 */
export interface MetricRecord {
  readonly step: number;
  readonly [name: string]: MetricValue;
}

export interface MetricsOptions {
  /** Drop the records after this step first; 0 or more. Without it, new records follow the old ones. */
  resumeAfter?: number;
}

/** JSON has no NaN and no infinities; they are stored as these strings and come back as numbers. */
const NON_FINITE: ReadonlyMap<unknown, number> = new Map([
  ["NaN", Number.NaN],
  ["Infinity", Number.POSITIVE_INFINITY],
  ["-Infinity", Number.NEGATIVE_INFINITY],
]);

/**
 * Appends records to a JSONL file. Calls return at once; `flush` waits for the disk.
 *
 * @example
 * const metrics = await MetricsWriter.open("runs/demo/metrics.jsonl", { resumeAfter: 200 });
 * metrics.append({ step: 201, loss: 2.3 });
 * await metrics.close();
 */
export class MetricsWriter {
  readonly path: string;
  readonly #file: AppendFile;

  private constructor(file: AppendFile) {
    this.path = file.path;
    this.#file = file;
  }

  /**
   * Opens a file for appending, made if it is missing. A last line that a killed run left half-written is removed.
   *
   * @throws {FormatError} if a line before the last is not a record
   * @throws {IoError} if the file cannot be read or written
   */
  static async open(path: string, options: MetricsOptions = {}): Promise<MetricsWriter> {
    await truncateMetricsAfter(path, options.resumeAfter ?? Number.POSITIVE_INFINITY);
    return new MetricsWriter(await AppendFile.open(path));
  }

  append(record: MetricRecord): void {
    this.#file.append(Buffer.from(encodeMetric(record)));
  }

  /** Waits until everything appended so far is on the disk. */
  flush(): Promise<void> {
    return this.#file.flush();
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/**
 * All records of a metrics file, in file order. A half-written last line is passed over.
 *
 * @throws {FormatError} if another line is not a record
 * @throws {IoError} if the file cannot be read
 */
export async function readMetrics(path: string): Promise<MetricRecord[]> {
  return parseMetrics(await readText(path), path).map((line) => line.record);
}

/**
 * Drops the records after `step`, and a half-written last line; the file is rewritten atomically and only if it
 * changes. A missing file stays missing.
 */
export async function truncateMetricsAfter(path: string, step: number): Promise<void> {
  if (Number.isNaN(step) || step < 0) {
    throw new OptionError(`[truncateMetricsAfter] step must be 0 or more; received ${step}.`);
  }
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (isMissing(cause)) return;
    throw ioError("read", path, cause);
  }
  const kept = parseMetrics(text, path).filter(({ record }) => record.step <= step);
  const rewritten = kept.map((line) => `${line.text}\n`).join("");
  if (rewritten !== text) await writeFileAtomic(path, rewritten);
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw ioError("read", path, cause);
  }
}

function encodeMetric(record: MetricRecord): string {
  if (!isStep(record.step)) {
    throw new OptionError(`[MetricsWriter] step must be a non-negative integer; received ${String(record.step)}.`);
  }
  const line = JSON.stringify(record, (_, value) =>
    typeof value === "number" && !Number.isFinite(value) ? String(value) : value,
  );
  return `${line}\n`;
}

interface MetricLine {
  readonly text: string;
  readonly record: MetricRecord;
}

function parseMetrics(text: string, path: string): MetricLine[] {
  const lines = text.split("\n");
  const records: MetricLine[] = [];
  lines.forEach((line, index) => {
    if (line.trim() === "") return;
    const record = parseLine(line);
    if (record) records.push({ text: line, record });
    // What follows the last newline was being written when the run stopped; anything else is damage.
    else if (index !== lines.length - 1) {
      throw new FormatError(
        `[readMetrics] ${path}, line ${index + 1}: expected a JSON object with an integer "step", found ${quote(line)}. ` +
          "Remove the line, or the file if the run is to start anew.",
      );
    }
  });
  return records;
}

function parseLine(line: string): MetricRecord | undefined {
  try {
    const value: unknown = JSON.parse(line, (_, part: unknown) => NON_FINITE.get(part) ?? part);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is MetricRecord {
  return typeof value === "object" && value !== null && "step" in value && isStep(value.step);
}

function isStep(step: unknown): boolean {
  return Number.isSafeInteger(step) && (step as number) >= 0;
}

function quote(line: string): string {
  return JSON.stringify(line.length > 60 ? `${line.slice(0, 60)}…` : line);
}
